"""Rendered conversations on their way to the packer: token ids and masks, end to end.

tokens.bin     int32, ids of all sequences
masks.bin      uint8, 1 where the token itself is one that the model learns to produce
sequences.bin  a SEQUENCE record for each
spool.json     {"sequences", "rows", "tokens", "eos_id"}, written last: without it there is no spool

What is chosen and packed follows from sequences.bin alone: 40 bytes for a sequence of any length.
"""

import mmap
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json
from nemoflow.splits import point

SEQUENCE = np.dtype(
    [
        ("start", "<i8"),  # of its ids in tokens.bin, and of its mask in masks.bin
        ("length", "<i4"),  # tokens
        ("first", "<i4"),  # the first token, but for the very first one, that is trained; or length
        ("trained", "<i4"),  # how many tokens are, the very first one not counted
        ("row", "<i4"),  # the conversation that it is of, from 0; those of one row are neighbours
        ("prompt", "<u8"),  # of its row: a hash of what comes before the first trained token
        ("content", "<u8"),  # of its row: a hash of all ids and masks
    ]
)


class Conversation(NamedTuple):
    """Sequences of one row: int32[n] ids and uint8[n] mask of all, SEQUENCE[k] as of a spool."""

    ids: np.ndarray
    mask: np.ndarray
    sequences: np.ndarray


def conversation(row: Iterable[tuple[np.ndarray, np.ndarray]]) -> Conversation:
    """A conversation of sequences of int32[n] ids and uint8[n] mask each, n > 0."""
    given = list(row)
    told = np.zeros(len(given), SEQUENCE)
    ids = np.concatenate([ids for ids, _ in given]).astype("<i4", copy=False)
    mask = np.concatenate([mask for _, mask in given]).astype(np.uint8, copy=False)
    start = 0
    for entry, (own, trains) in zip(told, given, strict=True):
        trained = np.flatnonzero(trains[1:])
        entry["start"], entry["length"], entry["trained"] = start, len(own), len(trained)
        entry["first"] = trained[0] + 1 if len(trained) else len(own)
        start += len(own)
    told["prompt"] = point(0, ids[: told["first"][0]].tobytes())
    told["content"] = point(0, told["length"].tobytes(), ids.tobytes(), mask.tobytes())
    return Conversation(ids, mask, told)


class SpoolWriter:
    """Writes a spool into a folder that it empties first; a context manager."""

    def __init__(self, folder: str | Path, eos_id: int) -> None:
        self.folder = Path(folder)
        self._eos_id = eos_id
        self._sequences = self._rows = self._tokens = 0

    def __enter__(self) -> "SpoolWriter":
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._exit = ExitStack()
        self._files = [
            self._exit.enter_context((self.folder / name).open("wb"))
            for name in ("tokens.bin", "masks.bin", "sequences.bin")
        ]
        return self

    def add(self, row: Conversation) -> None:
        """Append a conversation."""
        told = row.sequences.copy()
        told["start"] += self._tokens
        told["row"] = self._rows
        for file, part in zip(self._files, (row.ids, row.mask, told), strict=True):
            file.write(part.data)
        self._sequences, self._rows = self._sequences + len(told), self._rows + 1
        self._tokens += len(row.ids)

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._exit.close()
        if kind is None:
            written = {"sequences": self._sequences, "rows": self._rows, "tokens": self._tokens}
            write_json(self.folder / "spool.json", written | {"eos_id": self._eos_id})


class Spool:
    """Reads a spool: `sequences` SEQUENCE[n] in memory; ids and masks are memory maps.

    UserError when the folder holds no whole spool.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "spool.json").is_file():
            raise UserError(f"{folder} holds no rendered conversations; render the source again")
        written = read_json(folder / "spool.json")
        total, count = written["tokens"], written["sequences"]
        sizes = {"tokens.bin": 4 * total, "masks.bin": total}
        sizes["sequences.bin"] = SEQUENCE.itemsize * count
        if any((folder / name).stat().st_size != size for name, size in sizes.items()):
            raise UserError(f"{folder} is damaged: its sizes disagree; render the source again")
        self.eos_id: int = written["eos_id"]
        self.rows: int = written["rows"]
        self.sequences = np.fromfile(folder / "sequences.bin", SEQUENCE)
        if total:
            self.tokens = np.memmap(folder / "tokens.bin", "<i4", "r")
            self.masks = np.memmap(folder / "masks.bin", np.uint8, "r")
        else:
            self.tokens, self.masks = np.empty(0, "<i4"), np.empty(0, np.uint8)

    def release(self) -> None:
        """Give up the memory of what was read; it stays in the system's cache."""
        for array in (self.tokens, self.masks):
            if isinstance(array.base, mmap.mmap):
                array.base.madvise(mmap.MADV_DONTNEED)

    def sequence(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids, mask) of one sequence, views of the memory maps."""
        start = self.sequences["start"][index]
        span = slice(start, start + self.sequences["length"][index])
        return self.tokens[span], self.masks[span]
