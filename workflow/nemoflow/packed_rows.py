"""Whether the rows of a packed Parquet file are what the trainer reads; the first that is not."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nemoflow.errors import UserError
from nemoflow.parquet import naming

AT_ONCE = 1 << 21  # tokens
COLUMNS = {
    "input_ids": (pa.int32(),),
    "loss_mask": (pa.uint8(), pa.int8()),
    "seq_start_id": (pa.int32(),),
}


@dataclass(frozen=True)
class Rules:
    """What a file's rows are held to: tokens of a row, padding, ids below the vocabulary."""

    pack_size: int
    pad_multiple: int
    vocabulary: int


@dataclass
class Found:
    """What a file holds, in pieces that belong one behind the other.

    Tokens of each sequence int64[sequences] and sequences of each row int64[rows]; how many rows,
    and how many trained tokens.
    """

    lengths: list[np.ndarray] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)
    rows: int = 0
    trained: int = 0


def check(path: Path, rules: Rules) -> Found:
    """Read every row of a file, a few at a time.

    Raises:
        UserError: says the file, the row from 1, and what is wrong with it.
    """
    found = Found()
    with open(path, "rb") as file, naming(file):
        reader = pq.ParquetFile(file)
        _check_columns(reader.schema_arrow, path)
        batches = reader.iter_batches(max(1, AT_ONCE // rules.pack_size), columns=list(COLUMNS))
        for batch in batches:
            rows = [_Lists(batch.column(column)) for column in COLUMNS]
            wrong = min(_faults(*rows, rules), default=None)
            if wrong:
                row, what = wrong
                raise UserError(f"import: {path}: row {found.rows + row + 1}: {what}")
            found.lengths.append(np.diff(_edges(rows[0], rows[2]), append=len(rows[0].values)))
            found.counts.append(rows[2].lengths)
            found.rows += batch.num_rows
            found.trained += int(rows[1].values.sum(dtype=np.int64))
    return found


def _check_columns(schema: pa.Schema, path: Path) -> None:
    if missing := [column for column in COLUMNS if column not in schema.names]:
        raise UserError(
            f"import: {path}: no column {missing[0]}; its columns: {', '.join(schema.names)}"
        )
    for column, kinds in COLUMNS.items():
        found = schema.field(column).type
        if not pa.types.is_list(found) or found.value_type not in kinds:
            wanted = " or ".join(f"list<{kind}>" for kind in kinds)
            raise UserError(f"import: {path}: column {column} is {found}, not {wanted}")


class _Lists:
    """A column of lists: row i holds values[offsets[i]:offsets[i + 1]]; `null` bool[rows]."""

    def __init__(self, column: pa.ListArray) -> None:
        offsets = np.asarray(column.offsets).astype(np.int64)
        flat = column.values.slice(offsets[0], offsets[-1] - offsets[0])
        self.offsets = offsets - offsets[0]
        self.lengths = np.diff(self.offsets)
        self.values = flat.fill_null(0).to_numpy(zero_copy_only=False)
        self.null = np.asarray(column.is_null())
        self.null[self.rows_of(flat.is_null().to_numpy(zero_copy_only=False))] = True

    def rows_of(self, places: np.ndarray) -> np.ndarray:
        """The rows of values that are marked in bool[values]."""
        return np.searchsorted(self.offsets, np.flatnonzero(places), "right") - 1


def _edges(ids: _Lists, starts: _Lists) -> np.ndarray:
    """Where each sequence begins among all tokens."""
    return starts.values + np.repeat(ids.offsets[:-1], starts.lengths)


def _faults(ids: _Lists, mask: _Lists, starts: _Lists, rules: Rules) -> Iterator[tuple[int, str]]:
    """(row, what is wrong) of the first row that breaks each rule."""
    rows = (ids, mask, starts)
    yield from _first(np.flatnonzero(np.any([column.null for column in rows], 0)), "a null")
    yield from _first(np.flatnonzero(ids.lengths == 0), "no tokens")
    yield from _first(
        np.flatnonzero(ids.lengths != mask.lengths), "input_ids and loss_mask differ in length"
    )
    yield from _first(
        np.flatnonzero(ids.lengths > rules.pack_size), f"more than pack_size {rules.pack_size}"
    )
    outside = (ids.values < 0) | (ids.values >= rules.vocabulary)
    if outside.any():
        said = f"id {ids.values[outside][0]} is not one of the tokenizer's {rules.vocabulary:,}"
        yield from _first(ids.rows_of(outside), said)
    yield from _first(mask.rows_of((mask.values != 0) & (mask.values != 1)), "loss_mask not 0 or 1")
    wrong = _wrong_starts(ids, starts)
    yield from _first(wrong, "seq_start_id must rise from 0 and stay below the row's length")
    if not len(wrong) and np.array_equal(ids.offsets, mask.offsets):
        yield from _wrong_sequences(ids, mask, starts, rules)


def _first(rows: np.ndarray, what: str) -> Iterator[tuple[int, str]]:
    if len(rows):
        yield int(rows[0]), what


def _wrong_starts(ids: _Lists, starts: _Lists) -> np.ndarray:
    none = starts.lengths == 0
    row_of = np.repeat(np.arange(len(none)), starts.lengths)
    begins = np.zeros(len(row_of), bool)
    begins[starts.offsets[:-1][~none]] = True
    rises = np.append(True, np.diff(starts.values) > 0)[: len(row_of)]
    good = np.where(begins, starts.values == 0, rises) & (starts.values < ids.lengths[row_of])
    return np.union1d(np.flatnonzero(none), row_of[~good])


def _wrong_sequences(
    ids: _Lists, mask: _Lists, starts: _Lists, rules: Rules
) -> Iterator[tuple[int, str]]:
    begins = _edges(ids, starts)
    lengths = np.diff(begins, append=len(ids.values))
    row_of = np.repeat(np.arange(len(ids.lengths)), starts.lengths)
    trained = row_of[mask.values[begins + lengths - 1] != 0]
    yield from _first(trained, "the last loss_mask of a sequence must be 0: nothing follows it")
    uneven = (lengths - 1) % rules.pad_multiple != 0
    if uneven.any():
        said = f"a sequence of {lengths[uneven][0]} tokens; (length - 1) must be a multiple"
        yield from _first(row_of[uneven], f"{said} of pad_multiple {rules.pad_multiple}")
