"""What is held out: seeded, disjoint by prompt, every environment's share."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow.errors import UserError
from nemoflow.prompt_holdout import hold_out

KEYS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=2, max_size=80)


def by_environment(rows):
    found = defaultdict(set)
    for prompt, name in rows:
        found[name].add(prompt)
    return found


@settings(max_examples=150)
@given(KEYS, st.booleans(), st.integers(1, 20), st.integers(0, 5))
def test_every_environment_with_two_prompts_is_in_both_splits(keys, shared, holdout, seed):
    # Environments have prompts of their own, or may share them.
    rows = [(n if shared else n * 3 + "abc".index(name), name) for n, name in keys]
    known = by_environment(rows)
    if holdout >= len(rows):
        return
    if all(len(prompts) < 2 for prompts in known.values()):
        with pytest.raises(UserError, match="two different prompts"):
            hold_out(rows, holdout, seed)
        return
    held = hold_out(rows, holdout, seed)
    assert held == hold_out(rows, holdout, seed)
    everything = {prompt for prompt, _ in rows}
    assert held < everything
    for prompts in known.values():
        if len(prompts) > 1:
            assert prompts & held or (shared and len(held) == len(everything) - 1)
            assert prompts - held or shared


def test_another_seed_holds_out_others():
    rows = [(number, "math") for number in range(1000)]
    assert len(hold_out(rows, 100, 1)) == 100
    assert hold_out(rows, 100, 1) != hold_out(rows, 100, 2)


def test_rows_with_one_prompt_stay_together():
    rows = [(number % 10, "math") for number in range(100)]
    held = hold_out(rows, 25, 1)
    assert len(held) == 3  # 30 rows
