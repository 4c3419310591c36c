"""The pieces of a shard, a few megabytes at a time, as texts.

A shard's blocks have numbers that everyone who reads it agrees on, so that several processes can
share them out: a range of bytes of a plain file, a row group of Parquet. What can only be read from
its beginning (gzip, zstd, a row group larger than a block) everyone reads, and parses only the
blocks that are his.
"""

from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from nemoflow import corpus, jsonl, parquet
from nemoflow.source_file import SourceFile
from nemoflow.text_rows import Block, Rows

BLOCK = 2 << 20  # bytes of a local file
REMOTE_BLOCK = 16 << 20  # bytes of an object in a store: each costs a request
SLACK = 1 << 16  # bytes read beyond a block, to the end of its last line

Json = dict[str, Any]
Unit = Callable[[], Block]


def units(pieces: list[Json], source: Json, cache: Path, rows: Rows) -> Iterator[Unit]:
    """The blocks of a shard in order; each is read, or at least parsed, when it is called.

    A call must come before the next unit is asked for. Nothing comes after the last row that
    `rows` asks for.
    """
    for piece in pieces:
        if rows.left == 0:
            return
        with corpus.opened(file_of(piece), source, cache) as file:
            for unit in _units(file, piece, rows):
                yield unit
                if rows.left == 0:
                    return


def file_of(piece: Json) -> SourceFile:
    """The file that a piece is of."""
    return SourceFile(piece["path"], piece["bytes"], piece["digest"])


def _units(file: BinaryIO, piece: Json, rows: Rows) -> Iterator[Unit]:
    source_file, path, span = file_of(piece), piece["path"], (piece["start"], piece["end"])
    if source_file.parquet:
        return _parquet_units(file, path, span, rows)
    if source_file.compressed:
        return _stream_units(jsonl.decompressed(file, path), path, rows)
    return _plain_units(file, path, piece["bytes"], span, rows)


def _plain_units(
    file: BinaryIO, path: str, size: int, span: tuple[int, int], rows: Rows
) -> Iterator[Unit]:
    step = BLOCK if isinstance(file, FileIO) else REMOTE_BLOCK
    buffer = bytearray(min(step + SLACK + 1, size))
    for start in range(*span, step):
        end = min(start + step, span[1])
        yield lambda start=start, end=end: rows.lines(
            path, *lines_of(file, size, start, end, buffer)
        )


def lines_of(
    file: BinaryIO, size: int, start: int, end: int, buffer: bytearray
) -> tuple[memoryview, int]:
    """(the lines that start in a range of a file of `size` bytes, where the first one does).

    They are read into `buffer`, or into a larger one where a line is longer than it.
    """
    begin = max(start - 1, 0)  # a line starts after the end of another
    view = read(file, begin, min(end + SLACK, size) - begin, buffer)
    first = 0
    if start:
        first = buffer.find(b"\n", 0, end - begin - 1) + 1
        if not first:
            return view[:0], start
    last = len(view)
    if end < size:
        last = buffer.find(b"\n", end - begin - 1, len(view)) + 1
        while not last and begin + len(view) < size:
            known = len(view)
            buffer = bytearray(min(2 * known, size - begin))
            view = read(file, begin, len(buffer), buffer)
            if len(view) <= known:  # the file was cut short meanwhile
                break
            last = buffer.find(b"\n", known) + 1
        last = last or len(view)
    return view[first:last], begin + first


def read(file: BinaryIO, start: int, size: int, buffer: bytearray) -> memoryview:
    """The bytes [start, start + size) of a file, in a buffer; fewer where it ends before."""
    view, done = memoryview(buffer)[:size], 0
    file.seek(start)
    while done < size and (got := file.readinto(view[done:])):
        done += got
    return view[:done]


def _stream_units(content: BinaryIO, path: str, rows: Rows) -> Iterator[Unit]:
    rest, base = [], 0
    while True:
        block = content.read(BLOCK)
        end = block.rfind(b"\n") + 1
        if block and not end:  # in the middle of a long line
            rest.append(block)
            continue
        lines = b"".join([*rest, block[:end]])
        if lines:
            yield lambda lines=lines, base=base: rows.lines(path, memoryview(lines), base)
        if not block:
            return
        base, rest = base + len(lines), [block[end:]]


def _parquet_units(file: BinaryIO, path: str, span: tuple[int, int], rows: Rows) -> Iterator[Unit]:
    groups = parquet.row_groups(file, span)
    if not groups:
        return
    column = parquet.TextColumn(file, path, rows.text_field)
    for group, first in groups:
        count, size = column.rows(group), column.bytes(group)
        if not count:
            continue
        each = max(1, count * BLOCK // max(size, 1))
        if each >= count:  # small: only who wants it reads it
            yield lambda group=group, first=first, count=count: rows.values(
                path, *column.batches(group, count), first
            )
            continue
        for values in column.batches(group, each):
            yield lambda values=values, first=first: rows.values(path, values, first)
            first += len(values)
