"""The seeded choice of held-out documents."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nemoflow.splits import POINTS, hold_out, point, quota, split_at

FRACTIONS = {"valid": 0.1, "test": 0.2}


def test_points_are_fixed_for_good():
    assert point(42, "web", "a.jsonl", 17) == 29858843564191104
    assert point(42, "web", "a.jsonl", 17) != point(43, "web", "a.jsonl", 17)
    assert point(0, "ab", "c") != point(0, "a", "bc")


def test_points_are_uniform():
    splits = Counter(split_at(point(1, number), FRACTIONS) for number in range(20_000))
    assert abs(splits["valid"] - 2000) < 200 and abs(splits["test"] - 4000) < 300
    assert split_at(0, {}) == "train" == split_at(POINTS - 1, FRACTIONS)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_quota_leaves_one(count, fraction):
    taken = quota(count, fraction)
    assert 0 <= taken <= max(0, count - 1)
    assert bool(taken) == bool(fraction and count > 1)


@given(st.sets(st.integers(0, POINTS - 1), max_size=60), st.floats(0, 1), st.floats(0, 1))
def test_the_lowest_points_are_held_out(points, valid, test):
    chosen = hold_out({p: p for p in points}, {"valid": valid, "test": test})
    assert len(chosen) < max(1, len(points))
    assert sorted(points)[: len(chosen)] == sorted(chosen)
    if valid and test and len(points) > 2 and valid + test < 0.5:
        assert {"valid", "test"} == set(chosen.values())
