"""Sequences to packed rows, as Parquet that Megatron-Bridge's packed dataset reads.

Columns: input_ids list<int32>, loss_mask list<uint8>, seq_start_id list<int32>. A row is one bin:
its sub-sequences end to end, each cut or padded to (length - 1) % pad_multiple == 0 (context
parallelism needs it; padding is EOS with mask 0), together at most `pack_size` tokens.
loss_mask[j] says whether predicting token j + 1 counts, so it is the rendered mask moved one to
the left within each sub-sequence, whose last is 0. seq_start_id holds the starts only.
"""

import shutil
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nemoflow.mixing import Chosen, choose
from nemoflow.spool import Spool

ROW_GROUP = 500  # packed rows
ROWS_PER_FILE = 10_000
SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "loss_mask": pa.list_(pa.uint8()),
        "seq_start_id": pa.list_(pa.int32()),
    }
)


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


class _Spaces:
    """Bins by the tokens still free in them, as runs (first bin, number of bins)."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._runs: dict[int, list[tuple[int, int]]] = {}

    def put(self, size: int, first: int, count: int) -> None:
        """Add `count` bins from `first` on, each with `size` tokens free."""
        if size not in self._runs:
            insort(self._sizes, size)
        self._runs.setdefault(size, []).append((first, count))

    def take(self, length: int) -> tuple[int, int, int] | None:
        """(size, first, count) of a run with the least space that holds `length`, or None."""
        at = bisect_left(self._sizes, length)
        if at == len(self._sizes):
            return None
        size = self._sizes[at]
        first, count = self._runs[size].pop()
        if not self._runs[size]:
            del self._runs[size], self._sizes[at]
        return size, first, count


def pack(lengths: np.ndarray, pack_size: int, seed: int) -> Bins:
    """Best-fit decreasing over the histogram of lengths; bins and equal lengths in seeded order.

    A million sequences take a fraction of a second: equal lengths are placed together, into many
    bins of equal space at once. Filling the least space that fits to the brim is what best-fit
    does with equal lengths one by one. ValueError unless all lengths lie in 1 .. pack_size.
    """
    lengths = np.asarray(lengths, np.int64)
    if not len(lengths):
        return Bins(np.zeros(1, np.int64), np.zeros(0, np.int64))
    if lengths.min() < 1 or lengths.max() > pack_size:
        raise ValueError(f"lengths must lie in 1 .. {pack_size}")
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(lengths))
    longest_first = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    bin_of, bins = _fill(lengths, pack_size)
    place = random.permutation(bins)[bin_of]
    order = np.argsort(place, kind="stable")
    offsets = np.zeros(bins + 1, np.int64)
    np.cumsum(np.bincount(place, minlength=bins), out=offsets[1:])
    return Bins(offsets, longest_first[order])


def _fill(lengths: np.ndarray, pack_size: int) -> tuple[np.ndarray, int]:
    """(the bin of each sequence, longest first; number of bins)."""
    spaces, bins = _Spaces(), 0
    placed: list[tuple[int, int, int]] = []  # (first bin, number of bins, sequences in each)
    distinct, counts = np.unique(lengths, return_counts=True)
    for length, left in zip(distinct[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while left:
            run = spaces.take(length)
            if run is None:
                run = (pack_size, bins, -(-left // (pack_size // length)))
                bins += run[2]
            size, first, count = run
            each = min(size // length, left)
            used = min(count, left // each)
            placed.append((first, used, each))
            left -= used * each
            if used < count:
                spaces.put(size, first + used, count - used)
            if size > each * length:
                spaces.put(size - each * length, first, used)
    first, used, each = np.array(placed, np.int64).T
    within = np.arange(used.sum()) - np.repeat(np.cumsum(used) - used, used)
    filled = np.repeat(first, used) + within
    return np.repeat(filled, np.repeat(each, used)), bins


def write_packed(
    spools: Mapping[str, tuple[str | Path, float]],
    pack_size: int,
    pad_multiple: int,
    seed: int,
    valid_fraction: float,
    out_dir: str | Path,
) -> dict[str, Any]:
    """Pack {source: (spool folder, weight)} into out_dir/{train,valid}/packed_*.parquet.

    Sequences longer than a bin are cut, and those that then train nothing dropped, both counted.
    Weights and the valid split: see `mixing.choose`. `out_dir` is emptied first.

    Returns {"sources": {source: counts of `mixing.choose`}, "train": {"rows", "sequences",
    "tokens" (with padding), "trained_tokens", "fill"}, "valid": the same}. UserError where
    nothing is left to train on, or for a bad weight.
    """
    longest = (pack_size - 1) // pad_multiple * pad_multiple + 1
    opened = {name: (Spool(folder), weight) for name, (folder, weight) in spools.items() if weight}
    chosen, sources = choose(opened, longest, seed, valid_fraction)
    out_dir = Path(out_dir)
    shutil.rmtree(out_dir, ignore_errors=True)
    counts: dict[str, Any] = {"sources": sources}
    for split, sequences in chosen.items():
        counts[split] = _write_split(sequences, pack_size, pad_multiple, seed, out_dir / split)
    return counts


def _write_split(
    sequences: Chosen, pack_size: int, pad_multiple: int, seed: int, folder: Path
) -> dict[str, Any]:
    stored = -(-(sequences.lengths - 1) // pad_multiple) * pad_multiple + 1
    bins = pack(stored, pack_size, seed)
    trained = 0
    if len(bins):
        folder.mkdir(parents=True)
    for number, begin in enumerate(range(0, len(bins), ROWS_PER_FILE)):
        path = folder / f"packed_{number:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for first in range(begin, min(begin + ROWS_PER_FILE, len(bins)), ROW_GROUP):
                last = min(first + ROW_GROUP, len(bins), begin + ROWS_PER_FILE)
                table, of_these = _table(sequences, stored, bins, first, last)
                trained += of_these
                writer.write_table(table, row_group_size=ROW_GROUP)
    tokens = int(stored.sum())
    return {
        "rows": len(bins),
        "sequences": len(stored),
        "tokens": tokens,
        "trained_tokens": trained,
        "fill": round(tokens / (len(bins) * pack_size), 4) if len(bins) else 0.0,
    }


def _table(
    sequences: Chosen, stored: np.ndarray, bins: Bins, first: int, last: int
) -> tuple[pa.Table, int]:
    """(rows of bins first .. last - 1, how many of their tokens are trained)."""
    members = bins.members[bins.offsets[first] : bins.offsets[last]]
    sizes = stored[members]
    starts = np.cumsum(sizes) - sizes
    ids = np.full(int(sizes.sum()), sequences.eos_id, np.int32)
    mask = np.zeros(len(ids), np.uint8)
    for start, (own, trained) in zip(starts.tolist(), sequences.of(members), strict=True):
        ids[start : start + len(own)] = own
        mask[start : start + len(own) - 1] = trained[1:]
    counts = np.diff(bins.offsets[first : last + 1])
    row_of = np.repeat(np.arange(last - first), counts)
    in_bin = bins.offsets[first : last + 1] - bins.offsets[first]
    edges = np.append(starts, len(ids))[in_bin]
    starts_in_row = (starts - edges[row_of]).astype(np.int32)
    columns = [_lists(ids, edges), _lists(mask, edges), _lists(starts_in_row, in_bin)]
    return pa.Table.from_arrays(columns, schema=SCHEMA), int(mask.sum(dtype=int))


def _lists(values: np.ndarray, edges: np.ndarray) -> pa.ListArray:
    """values[edges[i]:edges[i + 1]] as element i; from buffers, since pa.array imports pandas."""
    kind = pa.from_numpy_dtype(values.dtype)
    flat = pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
    offsets = pa.py_buffer(edges.astype(np.int32))
    return pa.Array.from_buffers(pa.list_(kind), len(edges) - 1, [None, offsets], children=[flat])
