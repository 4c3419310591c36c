"""Sequences to packed rows, as Parquet that Megatron-Bridge's packed dataset reads.

Columns: input_ids list<int32>, loss_mask list<uint8>, seq_start_id list<int32>. A row is one bin:
its sub-sequences end to end, each padded to (length - 1) % pad_multiple == 0 (context parallelism
needs it; padding is EOS with mask 0), together at most `pack_size` tokens. loss_mask[j] says
whether predicting token j + 1 counts, so it is the rendered mask moved one to the left within each
sub-sequence, whose last is 0. seq_start_id holds the starts only.

Beside the splits lies packing.json, what Megatron-Bridge calls `packed_metadata_path`.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nemoflow import mixing, padding
from nemoflow.bins import Bins, pack
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.mixing import Chosen, choose
from nemoflow.spool import Spool

GROUP = 1 << 21  # tokens of a row group, or one row: what a reader decodes for any row of it
GROUPS_PER_FILE = 64
METADATA = "packing.json"
SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "loss_mask": pa.list_(pa.uint8()),
        "seq_start_id": pa.list_(pa.int32()),
    }
)
DEFAULTS = {
    "pad_multiple": 1,
    "algorithm": "best_fit",
    "too_long": "truncate",
    "weigh_by": "rows",
    "valid_fraction": 0.0,
    "seed": 0,
}


def write_packed(
    spools: Mapping[str, str | Path], told: Mapping[str, Any], out_dir: str | Path
) -> dict[str, Any]:
    """Pack {source: spool folder} into out_dir/{train,valid}/packed_*.parquet.

    `told` has `weights` by source, `pack_size`, and of DEFAULTS what differs. Which conversations,
    and into which split: `mixing.choose`. What is longer than a row is truncated, dropped or split:
    `cutting.cut`. `out_dir` is emptied first.

    Returns {"sources": {source: counts of `mixing.told`}, "train": {"rows", "sequences", "tokens"
    (with padding), "padding", "trained_tokens", "fill"}, "valid": the same}.

    Raises:
        UserError: as `choose`; no padded sequence would fit into a row.
    """
    told = DEFAULTS | told
    longest = padding.longest(told["pack_size"], told["pad_multiple"])
    if longest < 2:
        raise UserError(
            f"mixture: pack_size {told['pack_size']} holds no sequence padded to pad_multiple"
            f" {told['pad_multiple']}; set a larger pack_size"
        )
    asked = {key: told[key] for key in ("seed", "valid_fraction", "weigh_by", "too_long")}
    opened = {name: (Spool(path), told["weights"][name]) for name, path in spools.items()}
    chosen, sources = choose(opened, longest, **asked)
    out_dir = Path(out_dir)
    shutil.rmtree(out_dir, ignore_errors=True)
    made = {split: _write_split(chosen[split], told, out_dir / split) for split in chosen}
    write_json(out_dir / METADATA, [entry for _, _, entries in made.values() for entry in entries])
    trained = {split: by_source for split, (_, by_source, _) in made.items()}
    counts = {split: found for split, (found, _, _) in made.items()}
    return {"sources": mixing.told(sources, trained), **counts}


def _write_split(
    sequences: Chosen, told: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], np.ndarray, list[dict[str, Any]]]:
    """(counts, trained tokens by source, entries of packing.json)."""
    stored = padding.padded(sequences.length, told["pad_multiple"])
    bins = pack(stored, told["pack_size"], told["seed"], told["algorithm"])
    trained = write_rows(sequences, stored, bins, folder)
    counts = counts_of(stored, bins, int(trained.sum()), told["pack_size"])
    counts["padding"] = int(stored.sum() - sequences.length.sum())
    return counts, trained, metadata(stored, bins, told["pack_size"])


def write_rows(sequences: Chosen, stored: np.ndarray, bins: Bins, folder: Path) -> np.ndarray:
    """Write bins as files of row groups; the trained tokens of each spool, int64[spools].

    One row group is in memory at a time; without bins there is no folder.
    """
    trained = np.zeros(len(sequences.spools), np.int64)
    groups = list(_groups(np.add.reduceat(stored[bins.members], bins.offsets[:-1])))
    for number in range(-(-len(groups) // GROUPS_PER_FILE)):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"packed_{number:05d}.parquet"
        options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
        with pq.ParquetWriter(path, SCHEMA, **options) as writer:
            for first, last in groups[number * GROUPS_PER_FILE : (number + 1) * GROUPS_PER_FILE]:
                table, of_these = _table(sequences, stored, bins, first, last)
                trained += of_these
                writer.write_table(table, row_group_size=last - first)
    return trained


def _groups(tokens: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of the bins of each row group; `tokens` int64[bins]."""
    ends, first, before = np.cumsum(tokens), 0, 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, before + GROUP, "right")))
        yield first, last
        first, before = last, int(ends[last - 1])


def _table(
    sequences: Chosen, stored: np.ndarray, bins: Bins, first: int, last: int
) -> tuple[pa.Table, np.ndarray]:
    """(rows of bins first .. last - 1, how many of their tokens are trained by spool)."""
    members = bins.members[bins.offsets[first] : bins.offsets[last]]
    sizes = stored[members]
    starts = np.cumsum(sizes) - sizes
    ids = np.full(int(sizes.sum()), sequences.eos_id, np.int32)
    mask = np.zeros(len(ids), np.uint8)
    for start, (own, trained) in zip(starts.tolist(), sequences.of(members), strict=True):
        ids[start : start + len(own)] = own
        mask[start : start + len(own) - 1] = trained[1:]
    for spool in sequences.spools:
        spool.release()
    counts = np.diff(bins.offsets[first : last + 1])
    row_of = np.repeat(np.arange(last - first), counts)
    in_bin = bins.offsets[first : last + 1] - bins.offsets[first]
    edges = np.append(starts, len(ids))[in_bin]
    starts_in_row = (starts - edges[row_of]).astype(np.int32)
    columns = [_lists(ids, edges), _lists(mask, edges), _lists(starts_in_row, in_bin)]
    by_sequence = np.add.reduceat(mask, starts, dtype=np.int64)
    by_spool = np.bincount(sequences.source[members], by_sequence, len(sequences.spools))
    return pa.Table.from_arrays(columns, schema=SCHEMA), by_spool.astype(np.int64)


def _lists(values: np.ndarray, edges: np.ndarray) -> pa.ListArray:
    """values[edges[i]:edges[i + 1]] as element i; from buffers, since pa.array imports pandas."""
    kind = pa.from_numpy_dtype(values.dtype)
    flat = pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
    offsets = pa.py_buffer(edges.astype(np.int32))
    return pa.Array.from_buffers(pa.list_(kind), len(edges) - 1, [None, offsets], children=[flat])


def counts_of(stored: np.ndarray, bins: Bins, trained: int, pack_size: int) -> dict[str, Any]:
    """What the manifest tells of a split."""
    tokens = int(stored.sum())
    return {
        "rows": len(bins),
        "sequences": len(stored),
        "tokens": tokens,
        "trained_tokens": trained,
        "fill": round(tokens / (len(bins) * pack_size), 4) if len(bins) else 0.0,
    }


def metadata(stored: np.ndarray, bins: Bins, pack_size: int) -> list[dict[str, Any]]:
    """A split's entry of packing.json, none without rows; Megatron-Bridge counts length - 1."""
    if not len(bins):
        return []
    positions, counts = stored[bins.members] - 1, np.diff(bins.offsets)
    rows = np.add.reduceat(positions, bins.offsets[:-1])
    entry = {
        "dataset_max_seqlen": int(positions.max()),
        "max_samples_per_bin": int(counts.max()),
        "min_packed_seqlen": int(rows.min()),
        "pack_size": pack_size,
        "packing_efficiency": round(100 * float(rows.mean()) / pack_size, 2),
        "packing_factor": round(float(counts.mean()), 2),
    }
    return [entry]
