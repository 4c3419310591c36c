"""Whether a .bin and its .idx from elsewhere are what Megatron's reader takes them for.

Megatron itself checks the magic bytes, the version and a few counts
(megatron/core/datasets/indexed_dataset.py); the rest it finds, or does not, in training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemoflow.errors import UserError
from nemoflow.indexed import CODES, HEADER, MAGIC, VERSION, token_dtype
from nemoflow.progress import Bytes

BLOCK = 1 << 22  # entries looked at together: 32 MB of offsets


@dataclass(frozen=True)
class Index:
    """A checked pair: `lengths` int32[sequences] in tokens, a memory map of the .idx.

    `documents` may be fewer than the sequences; `stamps` are size and mtime of both files.
    """

    bin: Path
    idx: Path
    dtype: np.dtype
    lengths: np.ndarray
    documents: int
    stamps: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """The bytes of the .bin."""
        return self.stamps[0][0]

    @property
    def tokens(self) -> int:
        """Ids in the .bin."""
        return self.size // self.dtype.itemsize

    def refuse_changed(self) -> None:
        """UserError where a file is not what it was when it was checked."""
        for file, stamp in zip((self.bin, self.idx), self.stamps, strict=True):
            if stamp_of(file) != stamp:
                raise UserError(f"{file}: changed while it was imported; try again")


def stamp_of(file: Path) -> tuple[int, int]:
    """Size in bytes and mtime in nanoseconds."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def check_index(bin: Path, idx: Path, dtype: str) -> Index:
    """The index of a pair, once everything but the ids is known to be right.

    Raises:
        UserError: names the file and what is wrong; also where its ids are not of type `dtype`.
    """
    stamps = [stamp_of(bin), stamp_of(idx)]
    found, count, entries = read_header(idx, stamps[1][0])
    if found != dtype:
        raise UserError(
            f"{idx}: its ids are {found}, the tokenizer's file says dtype: {dtype}; set"
            f" dtype: {found} there, or write the shards again"
        )
    if not count:
        raise UserError(f"{idx}: it has no sequences; leave the pair out")
    starts = np.cumsum([HEADER.size, 4 * count, 8 * count])
    arrays = zip(("<i4", "<i8", "<i8"), starts, (count, count, entries), strict=True)
    lengths, offsets, documents = (
        np.memmap(idx, kind, "r", int(start), (size,)) for kind, start, size in arrays
    )
    width = token_dtype(dtype).itemsize
    check_offsets(idx, lengths, offsets, width)
    check_documents(idx, documents, count)
    expected = int(offsets[-1]) + int(lengths[-1]) * width
    if stamps[0][0] != expected:
        word = "cut short" if stamps[0][0] < expected else "too long"
        raise UserError(
            f"{bin}: {word}: it has {stamps[0][0]:,} bytes, by {idx.name} they are {expected:,}"
        )
    return Index(bin, idx, token_dtype(dtype), lengths, entries - 1, stamps)


def read_header(idx: Path, size: int) -> tuple[str, int, int]:
    """The dtype's name, the number of sequences and of document indices; the file's size fits."""
    with open(idx, "rb") as file:
        header = file.read(HEADER.size)
    if not header.startswith(MAGIC):
        word = "it begins" if header else "it is empty: it does not begin"
        raise UserError(f"{idx}: no index of Megatron: {word} with {header[:9]!r}, not {MAGIC!r}")
    if len(header) < HEADER.size:
        raise UserError(
            f"{idx}: cut short: {len(header)} bytes, its header alone has {HEADER.size}"
        )
    _, version, code, count, entries = HEADER.unpack(header)
    if version != VERSION:
        raise UserError(f"{idx}: it has version {version}; known is {VERSION}")
    names = [name for name, known in CODES.items() if known == code]
    if not names:
        known = ", ".join(f"{code} = {name}" for name, code in CODES.items())
        raise UserError(f"{idx}: it has dtype code {code}, which holds no token ids ({known})")
    expected = HEADER.size + 12 * count + 8 * entries
    if count and size == expected + count:
        raise UserError(
            f"{idx}: it has a mode for each sequence: of a multimodal dataset, not text"
        )
    if size != expected:
        word = "cut short" if size < expected else "too long"
        raise UserError(
            f"{idx}: {word}: it has {size:,} bytes; its {count:,} sequences and {entries:,}"
            f" document indices make {expected:,}"
        )
    return names[0], count, entries


def blocks(count: int) -> Iterator[slice]:
    """Slices of at most BLOCK entries that cover `count` of them."""
    return (slice(at, min(at + BLOCK, count)) for at in range(0, count, BLOCK))


def check_offsets(idx: Path, lengths: np.ndarray, offsets: np.ndarray, width: int) -> None:
    """Lengths are positive, and each sequence begins where the one before ends."""
    begin = 0
    for block in blocks(len(lengths)):
        here = lengths[block].astype(np.int64)
        if here.min() <= 0:
            at = int(np.argmax(here <= 0))
            raise UserError(
                f"{idx}: sequence {block.start + at:,} has {here[at]:,} tokens; the least is one"
            )
        ends = begin + np.cumsum(here * width)
        expected = ends - here * width
        if not np.array_equal(offsets[block], expected):
            at = int(np.argmax(offsets[block] != expected))
            raise UserError(
                f"{idx}: sequence {block.start + at:,} begins at byte"
                f" {offsets[block.start + at]:,}, by the lengths before it at {expected[at]:,}"
            )
        begin = int(ends[-1])


def check_documents(idx: Path, documents: np.ndarray, count: int) -> None:
    """Document indices never fall, from 0 to the number of sequences."""
    if not len(documents) or documents[0] != 0:
        first = f"begin with {documents[0]:,}" if len(documents) else "are none"
        raise UserError(f"{idx}: its document indices {first}; the first is 0")
    if documents[-1] != count:
        raise UserError(
            f"{idx}: its document indices end with {documents[-1]:,}, and there are {count:,}"
            " sequences; the last one is their number"
        )
    for block in blocks(len(documents) - 1):
        steps = np.diff(documents[block.start : block.stop + 1])
        if steps.min() < 0:
            at = block.start + int(np.argmax(steps < 0))
            raise UserError(
                f"{idx}: document {at:,} ends at sequence {documents[at + 1]:,}, where it begins is"
                f" {documents[at]:,}; document indices never fall"
            )


def check_ids(index: Index, vocabulary: int, progress: Bytes) -> None:
    """Every id is one of the tokenizer's; UserError names the first that is not, and its place."""
    ids = np.memmap(index.bin, index.dtype, "r")
    for block in blocks(len(ids)):
        here = ids[block]
        if here.min() < 0 or here.max() >= vocabulary:
            at = int(np.argmax((here < 0) | (here >= vocabulary)))
            place = block.start + at
            sequence = int(
                np.searchsorted(np.cumsum(index.lengths, dtype=np.int64), place, "right")
            )
            raise UserError(
                f"{index.bin}: id {int(here[at]):,} at position {place:,} (sequence {sequence:,});"
                f" the tokenizer has {vocabulary:,} ids, so another one made these shards"
            )
        progress.add(here.nbytes)
