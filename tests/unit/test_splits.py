"""The seeded choice of held-out documents."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.splits import POINTS, hold_out, point, points, quota


def test_points_are_fixed_for_good():
    assert point(42, "web", "a.jsonl", 17) == 29858843564191104
    assert point(42, "web", "a.jsonl", 17) != point(43, "web", "a.jsonl", 17)
    assert point(0, "ab", "c") != point(0, "a", "bc")


def test_points_are_uniform():
    drawn = [point(1, number) / POINTS for number in range(20_000)]
    assert abs(sum(place < 0.1 for place in drawn) - 2000) < 200
    assert abs(sum(place < 0.3 for place in drawn) - 6000) < 300


def test_points_of_many_places_are_fixed_for_good():
    places = np.array([0, 1, 2, 1 << 40], np.int64)
    assert points(42, "web", "a.jsonl", places).tolist() == [
        15191049492035955200,
        6488256392182879564,
        17250201270992020723,
        865500663611882039,
    ]
    others = (points(43, "web", "a.jsonl", places), points(42, "web", "b.jsonl", places))
    for other in (*others, points(42, "code", "a.jsonl", places)):
        assert not np.isin(other, points(42, "web", "a.jsonl", places)).any()
    for i in range(4):  # each follows from its own place alone
        alone = points(42, "web", "a.jsonl", places[i : i + 1])
        assert alone == points(42, "web", "a.jsonl", places)[i]
    assert points(42, "web", "a.jsonl", places[:0]).dtype == np.uint64


def test_points_of_many_places_are_uniform():
    """Of rows in a row, and of lines of one length, which lie in a lattice."""
    for step in (1, 64, 4096, 1000):
        found = points(1, "web", "a.jsonl", np.arange(0, 20_000 * step, step))
        assert len(np.unique(found)) == 20_000
        for bits in (found >> np.uint64(60), found & np.uint64(15)):
            counts = np.bincount(bits.astype(np.int64), minlength=16)
            assert ((counts - 1250) ** 2 / 1250).sum() < 45  # chi squared, 15 degrees: p < 1e-4
        neighbours = np.corrcoef(found[1:].astype(float), found[:-1].astype(float))[0, 1]
        assert abs(neighbours) < 0.03


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
