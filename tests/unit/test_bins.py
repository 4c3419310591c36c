"""Which sequences share a row."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow.bins import ALGORITHMS, pack


def fitted(lengths, size, best):
    """How many bins first-fit or best-fit decreasing fills, one sequence after another."""
    bins = []
    for length in sorted(lengths, reverse=True):
        fits = [index for index, free in enumerate(bins) if free >= length]
        if fits:
            bins[min(fits, key=bins.__getitem__) if best else fits[0]] -= length
        else:
            bins.append(size - length)
    return len(bins)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 40), max_size=120),
    st.integers(40, 60),
    st.integers(0, 3),
    st.sampled_from(sorted(ALGORITHMS)),
)
def test_every_sequence_once_and_no_bin_too_full(lengths, size, seed, algorithm):
    bins = pack(np.array(lengths, int), size, seed, algorithm)
    assert sorted(bins.members.tolist()) == list(range(len(lengths)))
    members = [bins[index] for index in range(len(bins))]
    assert all(0 < sum(lengths[m] for m in member) <= size for member in members)
    if algorithm == "best_fit":
        assert len(bins) <= fitted(lengths, size, best=True) + 1
    again = pack(np.array(lengths, int), size, seed, algorithm)
    assert np.array_equal(again.members, bins.members)


def test_as_full_as_first_fit_decreasing():
    lengths = np.clip(np.random.default_rng(0).lognormal(6.4, 1.1, 3000), 16, 4096).astype(int)
    best = len(pack(lengths, 4096, 0))
    assert best <= fitted(lengths.tolist(), 4096, best=False)
    shuffled = len(pack(lengths, 4096, 0, "first_fit_shuffle"))
    assert best < shuffled < len(pack(lengths, 4096, 0, "concatenative"))


def test_first_fit_takes_the_first_bin_with_room():
    bin_of, bins = ALGORITHMS["first_fit_shuffle"](np.array([6, 5, 4, 5, 1, 9]), 10)
    assert bin_of.tolist() == [0, 1, 0, 1, 2, 2] and bins == 3


def test_concatenative_keeps_the_order():
    bin_of, bins = ALGORITHMS["concatenative"](np.array([6, 5, 4, 5, 1, 9]), 10)
    assert bin_of.tolist() == [0, 1, 1, 2, 2, 3] and bins == 4


@pytest.mark.parametrize(("size", "median", "sigma"), [(4096, 600, 1.1), (262144, 3000, 1.5)])
def test_a_million_sequences_take_a_moment(size, median, sigma):
    drawn = np.random.default_rng(0).lognormal(np.log(median), sigma, 10**6)
    lengths = np.clip(drawn, 16, size).astype(int)
    begin = time.process_time()
    bins = pack(lengths, size, 0)
    assert time.process_time() - begin < 3  # 0.2 to 0.4 s on a quiet core
    assert len(bins) <= 1.0001 * (lengths.sum() / size) + 1
    assert np.array_equal(np.sort(bins.members), np.arange(10**6))
    filled = np.add.reduceat(lengths[bins.members], bins.offsets[:-1])
    assert filled.max() <= size
    assert abs(np.corrcoef(np.diff(bins.offsets), np.arange(len(bins)))[0, 1]) < 0.05


def test_the_seed_shuffles_bins_and_ties():
    lengths = np.full(50, 3)
    assert not np.array_equal(pack(lengths, 9, 0).members, pack(lengths, 9, 1).members)
    bins = pack(np.repeat([9, 3, 1], [5, 9, 27]), 9, 5)
    sizes = [len(bins[index]) for index in range(len(bins))]
    assert sorted(sizes) == [1] * 5 + [3] * 3 + [9] * 3 and sizes != sorted(sizes)


def test_lengths_out_of_range_are_a_defect():
    for lengths in ([0], [11]):
        with pytest.raises(ValueError, match="1 .. 10"):
            pack(np.array(lengths), 10, 0)
