"""Megatron's indexed dataset: a flat file of token ids (`.bin`) and its index (`.idx`).

The layout is that of megatron-core's `IndexedDataset`, version 1, text only, little endian:

    .bin   the ids of all sequences, one after the other, no header
    .idx   magic (9 bytes), u64 version, u8 dtype code, u64 sequences S, u64 document count D,
           int32[S] lengths in tokens, int64[S] byte offsets into .bin, int64[D] document indices

Here one document is one sequence, so D = S + 1 and the document indices are 0, 1, ..., S.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nemoflow.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
# megatron.core.datasets.indexed_dataset.DType; its two float codes hold no token ids.
CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "uint16": 8}


def token_dtype(name: str) -> np.dtype:
    """The little-endian numpy dtype of that name; UserError where the format has no code for it."""
    if name not in CODES:
        raise UserError(f"dtype {name!r} cannot hold token ids; use one of {', '.join(CODES)}")
    return np.dtype(name).newbyteorder("<")


def check_fits(largest: int, dtype: str) -> None:
    """UserError when the token id `largest` does not fit the dtype of that name."""
    if largest > np.iinfo(token_dtype(dtype)).max:
        raise UserError(
            f"token id {largest} does not fit dtype {dtype}"
            f" (largest: {np.iinfo(dtype).max}); use dtype int32"
        )


def publish(ids: Path, prefix: Path, lengths: np.ndarray, dtype: str) -> str:
    """Make a file of ids `prefix.bin`, with `prefix.idx` beside it; the md5 of the index.

    `lengths` (int32[sequences]) are in tokens. Both are on disk before they have their names, the
    index last.
    """
    index = ids.with_name(f".{prefix.name}.idx.tmp")
    hashed = hashlib.md5()
    with open(index, "wb") as file:
        for part in index_parts(lengths, dtype):
            file.write(part)
            hashed.update(part)
        file.flush()
        os.fsync(file.fileno())
    with open(ids, "r+b") as file:
        os.fsync(file.fileno())
    ids.replace(prefix.with_name(f"{prefix.name}.bin"))
    index.replace(prefix.with_name(f"{prefix.name}.idx"))
    return hashed.hexdigest()


def index_parts(lengths: np.ndarray, dtype: str) -> Iterator[bytes | memoryview]:
    """The content of an index, from its beginning."""
    count, sizes = len(lengths), lengths.astype("<i8") * token_dtype(dtype).itemsize
    yield HEADER.pack(MAGIC, VERSION, CODES[dtype], count, count + 1)
    yield lengths.astype("<i4").data
    yield (np.cumsum(sizes) - sizes).astype("<i8").data
    yield np.arange(count + 1, dtype="<i8").data


class IndexedReader:
    """Reads `prefix.bin` and `prefix.idx`, checked on opening.

    Attributes: `lengths` int32[S] in tokens, `offsets` int64[S] in bytes, `tokens` the flat
    read-only memory map of all ids. UserError when a file is missing or damaged.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        index, data = (Path(f"{prefix}.{end}") for end in ("idx", "bin"))
        for path in (index, data):
            if not path.is_file():
                raise UserError(f"{path} does not exist; build the corpus it belongs to again")
        self.dtype, self.lengths, self.offsets = _read_index(index)
        size = data.stat().st_size
        if size != int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize:
            raise _damaged(data, f"it has {size} bytes, its .idx says otherwise")
        if size:
            self.tokens = np.memmap(data, self.dtype, "r")
        else:
            self.tokens = np.empty(0, self.dtype)

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, index: int) -> np.ndarray:
        """The ids of sequence `index`, shape [lengths[index]], a view of the memory map."""
        start = int(self.offsets[index]) // self.dtype.itemsize
        return self.tokens[start : start + int(self.lengths[index])]


def _read_index(path: Path) -> tuple[np.dtype, np.ndarray, np.ndarray]:
    with open(path, "rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise _damaged(path, "it is shorter than its header")
    magic, version, code, count, documents = HEADER.unpack(header)
    if magic != MAGIC:
        raise _damaged(path, "it does not begin with Megatron's magic bytes")
    if version != VERSION:
        raise _damaged(path, f"it has version {version}, known is {VERSION}")
    names = [name for name, known in CODES.items() if known == code]
    if not names:
        raise _damaged(path, f"it has dtype code {code}, which holds no token ids")
    if path.stat().st_size != HEADER.size + 12 * count + 8 * documents:
        raise _damaged(path, f"its size does not fit its {count} sequences")
    dtype = token_dtype(names[0])
    lengths = np.fromfile(path, "<i4", count, offset=HEADER.size)
    offsets = np.fromfile(path, "<i8", count, offset=HEADER.size + 4 * count)
    sizes = lengths.astype(np.int64) * dtype.itemsize
    if (lengths < 0).any() or not np.array_equal(offsets, np.cumsum(sizes) - sizes):
        raise _damaged(path, "its offsets do not follow from its lengths")
    return dtype, lengths, offsets


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}; delete it and build its corpus again")
