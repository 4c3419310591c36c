"""Lengths into bins: which sequences share a packed row.

best_fit           best-fit decreasing over the histogram of lengths; fills bins best
first_fit_shuffle  in seeded order, each into the first bin with room
concatenative      in seeded order, a new bin whenever the next one does not fit

Bins come in seeded order, so that neither their lengths nor their number of sequences are sorted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Filling = tuple[np.ndarray, int]  # (the bin of each sequence in the order given, number of bins)


@dataclass(frozen=True)
class Bins:
    """Which sequences lie in which bin: bin b holds members[offsets[b]:offsets[b + 1]].

    offsets int64[bins + 1], members int64[sequences], indices into the packed lengths.
    """

    offsets: np.ndarray
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.members[self.offsets[index] : self.offsets[index + 1]]


def pack(lengths: np.ndarray, pack_size: int, seed: int, algorithm: str = "best_fit") -> Bins:
    """Put every sequence into a bin of at most `pack_size` tokens; the same bins for the same seed.

    Raises:
        ValueError: a length lies outside of 1 .. pack_size.
    """
    lengths = np.asarray(lengths, np.int64)
    if not len(lengths):
        return Bins(np.zeros(1, np.int64), np.zeros(0, np.int64))
    if lengths.min() < 1 or lengths.max() > pack_size:
        raise ValueError(f"lengths must lie in 1 .. {pack_size}")
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    if algorithm == "best_fit":
        order = order[_order(pack_size - lengths[order])]
    bin_of, bins = ALGORITHMS[algorithm](lengths[order], pack_size)
    place = random.permutation(bins)[bin_of]
    offsets = np.zeros(bins + 1, np.int64)
    np.cumsum(np.bincount(place, minlength=bins), out=offsets[1:])
    return Bins(offsets, order[_order(place)])


def _order(keys: np.ndarray) -> np.ndarray:
    """np.argsort(keys, kind="stable") of int64[n] >= 0, by digits of 16 bits.

    Those numpy sorts by radix, three times faster than longer numbers.
    """
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in range(16, int(keys.max()).bit_length(), 16):
        order = order[np.argsort((keys[order] >> shift).astype(np.uint16), kind="stable")]
    return order


def best_fit(lengths: np.ndarray, pack_size: int) -> Filling:
    """Lengths int64[n], longest first, each into the bin with the least space that holds it.

    A million take a fraction of a second: equal lengths are placed together, into many bins of
    equal space at once. Filling the least space that fits to the brim is what best-fit does with
    equal lengths one by one.
    """
    counts = np.bincount(lengths)
    distinct = np.flatnonzero(counts)[::-1]
    spaces, bins = _Spaces(pack_size), 0
    placed: list[int] = []  # by threes: first bin, number of bins, sequences in each
    for length, left in zip(distinct.tolist(), counts[distinct].tolist(), strict=True):
        while left:
            size = spaces.least(length)
            if size:
                first, count = spaces.take(size)
            else:
                size, first, count = pack_size, bins, -(-left // (pack_size // length))
                bins += count
            each = size // length
            if each > left:
                each = left
            used = left // each
            if used > count:
                used = count
            placed += first, used, each
            left -= used * each
            if used < count:
                spaces.put(size, first + used, count - used)
            spaces.put(size - each * length, first, used)
    return _spread(placed), bins


class _Spaces:
    """Bins by the tokens still free in them, as runs (first bin, number of bins).

    Which spaces there are is known by two levels of bits: a sorted list would be moved about.
    """

    def __init__(self, most: int) -> None:
        self._shift = (most.bit_length() + 1) // 2
        self._blocks = [0] * ((most >> self._shift) + 1)  # bit b of block a: (a << shift) + b
        self._any = 0  # bit a: there is something in block a
        self._runs: dict[int, list[tuple[int, int]]] = {}

    def least(self, length: int) -> int:
        """The least space of at least `length`, 0 where there is none."""
        at = length >> self._shift
        if bits := self._blocks[at] >> (length & ((1 << self._shift) - 1)):
            return length - 1 + (bits & -bits).bit_length()
        if not (bits := self._any >> (at + 1)):
            return 0
        at += (bits & -bits).bit_length()
        bits = self._blocks[at]
        return (at << self._shift) - 1 + (bits & -bits).bit_length()

    def put(self, size: int, first: int, count: int) -> None:
        """Add `count` bins from `first` on, each with `size` tokens free; none with 0."""
        if size in self._runs:
            self._runs[size].append((first, count))
        elif size:
            self._runs[size] = [(first, count)]
            at = size >> self._shift
            self._blocks[at] |= 1 << (size & ((1 << self._shift) - 1))
            self._any |= 1 << at

    def take(self, size: int) -> tuple[int, int]:
        """The run of bins with this space that was put last."""
        runs = self._runs[size]
        run = runs.pop()
        if not runs:
            del self._runs[size]
            at = size >> self._shift
            self._blocks[at] ^= 1 << (size & ((1 << self._shift) - 1))
            if not self._blocks[at]:
                self._any ^= 1 << at
        return run


def _spread(placed: list[int]) -> np.ndarray:
    """The bin of each sequence, from runs of bins that take equally many."""
    first, used, each = np.array(placed, np.int64).reshape(-1, 3).T
    within = np.arange(used.sum()) - np.repeat(np.cumsum(used) - used, used)
    return np.repeat(np.repeat(first, used) + within, np.repeat(each, used))


def first_fit(lengths: np.ndarray, pack_size: int) -> Filling:
    """Lengths int64[n], each into the first bin with room, by a tree of the most room there is.

    Two neighbouring bins hold more than one bin's tokens: that bounds their number.
    """
    leaves = 1 << (2 * int(lengths.sum()) // pack_size + 1).bit_length()
    room = [pack_size] * (2 * leaves)  # room[i] = max(room[2 * i], room[2 * i + 1])
    bin_of = np.empty(len(lengths), np.int64)
    for index, length in enumerate(lengths.tolist()):
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < length:
                node += 1
        bin_of[index] = node - leaves
        room[node] -= length
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return bin_of, int(bin_of.max()) + 1


def concatenative(lengths: np.ndarray, pack_size: int) -> Filling:
    """Lengths int64[n], one behind the other."""
    ends = np.cumsum(lengths)
    firsts, before = [0], 0
    while (after := int(np.searchsorted(ends, before + pack_size, "right"))) < len(lengths):
        firsts.append(after)
        before = int(ends[after - 1])
    bin_of = np.zeros(len(lengths), np.int64)
    bin_of[firsts[1:]] = 1
    return np.cumsum(bin_of), len(firsts)


ALGORITHMS: dict[str, Callable[[np.ndarray, int], Filling]] = {
    "best_fit": best_fit,
    "first_fit_shuffle": first_fit,
    "concatenative": concatenative,
}
