"""Rendered conversations on their way to the packer: token ids and masks, end to end.

tokens.bin   int32, ids of all sequences
masks.bin    uint8, 1 where the token itself is one that the model learns to produce
lengths.npy  int32[sequences], tokens of each
spool.json   {"sequences", "tokens", "eos_id"}, written last: without it there is no spool
"""

import shutil
from pathlib import Path

import numpy as np

from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json


class SpoolWriter:
    """Writes a spool into a folder that it empties first; a context manager."""

    def __init__(self, folder: str | Path, eos_id: int) -> None:
        self.folder = Path(folder)
        self._eos_id = eos_id
        self._lengths: list[int] = []

    def __enter__(self) -> "SpoolWriter":
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._tokens = open(self.folder / "tokens.bin", "wb")
        self._masks = open(self.folder / "masks.bin", "wb")
        return self

    def add(self, ids: np.ndarray, mask: np.ndarray) -> None:
        """Append a sequence: int32[n] ids, uint8[n] mask, n > 0."""
        self._tokens.write(np.ascontiguousarray(ids, "<i4").data)
        self._masks.write(np.ascontiguousarray(mask, np.uint8).data)
        self._lengths.append(len(ids))

    def __exit__(self, kind: type | None, *_: object) -> None:
        for file in (self._tokens, self._masks):
            file.close()
        if kind is None:
            np.save(self.folder / "lengths.npy", np.array(self._lengths, "<i4"))
            written = {"sequences": len(self._lengths), "tokens": sum(self._lengths)}
            write_json(self.folder / "spool.json", written | {"eos_id": self._eos_id})


class Spool:
    """Reads a spool: `tokens` int32 and `masks` uint8 memory maps, `lengths`, `starts`, `eos_id`.

    UserError when the folder holds no whole spool.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "spool.json").is_file():
            raise UserError(f"{folder} holds no rendered conversations; render the source again")
        written = read_json(folder / "spool.json")
        self.eos_id: int = written["eos_id"]
        self.lengths = np.load(folder / "lengths.npy").astype(np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        sizes = [(folder / name).stat().st_size for name in ("tokens.bin", "masks.bin")]
        total = int(self.lengths.sum())
        if total != written["tokens"] or sizes != [4 * total, total]:
            raise UserError(f"{folder} is damaged: its sizes disagree; render the source again")
        if total:
            self.tokens = np.memmap(folder / "tokens.bin", "<i4", "r")
            self.masks = np.memmap(folder / "masks.bin", np.uint8, "r")
        else:
            self.tokens, self.masks = np.empty(0, "<i4"), np.empty(0, np.uint8)

    def sequence(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids, mask) of one sequence, views of the memory maps."""
        span = slice(self.starts[index], self.starts[index] + self.lengths[index])
        return self.tokens[span], self.masks[span]
