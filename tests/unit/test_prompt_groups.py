"""Prompts that are held out, over all sources."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow.prompt_groups import hold_out
from nemoflow.splits import quota


def prompts(*numbers):
    return [np.array(own, np.uint64) for own in numbers]


def test_the_lowest_hashes_are_held_out():
    (out,) = hold_out(prompts(range(100, 0, -1)), 0.1)
    assert out.sum() == 10 and out[-10:].all()


def test_a_prompt_goes_with_all_its_rows():
    a, b = hold_out(prompts([1, 1, 1, 2, 3, 4, 5, 6, 7, 8], [1, 9, 10]), 0.3)
    assert a.tolist() == [True] * 3 + [False] * 7
    assert b.tolist() == [True, False, False]


def test_a_prompt_too_large_for_the_quota_is_passed_over():
    (out,) = hold_out(prompts([1] * 50 + list(range(2, 52))), 0.05)
    assert out.sum() == 5 and not out[:50].any()


def test_where_every_prompt_is_too_large_the_smallest_goes():
    (out,) = hold_out(prompts([1] * 5 + [2] * 3 + [3] * 4), 0.01)
    assert out.tolist() == [False] * 5 + [True] * 3 + [False] * 4


def test_the_last_prompt_is_for_training():
    (out,) = hold_out(prompts([1] * 9), 0.5)
    assert not out.any()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=40), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.01, 0.2, 0.5]),
)
def test_no_prompt_in_both_and_every_source_trains(numbers, fraction):
    sources = prompts(*numbers)
    out = hold_out(sources, fraction)
    held = {int(p) for own, o in zip(sources, out, strict=True) for p in own[o]}
    kept = {int(p) for own, o in zip(sources, out, strict=True) for p in own[~o]}
    assert not held & kept
    assert all((~own).any() for own in out)
    if len(sources) == 1 and len(set(numbers[0])) == len(numbers[0]):
        assert out[0].sum() == quota(len(numbers[0]), fraction)
