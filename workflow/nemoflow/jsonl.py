"""JSON lines, plain or gzip: reading a range of them, parsing one."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from nemoflow.errors import UserError


def lines(
    path: Path, compressed: bool, span: tuple[int, int] | None
) -> Iterator[tuple[int, bytes]]:
    """(byte offset, line) of every line that is not blank and starts in the span."""
    start, end = span if span and not compressed else (0, None)
    try:
        with gzip.open(path) if compressed else open(path, "rb") as file:
            offset = 0
            if start:
                file.seek(start - 1)  # the line that holds the byte before is not ours
                offset = start - 1 + len(file.readline())
            for line in file:
                if end is not None and offset >= end:
                    return
                if line.strip():
                    yield offset, line if offset else line.removeprefix(codecs.BOM_UTF8)
                offset += len(line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}; fetch it again") from error


def parse(line: bytes) -> tuple[Any, str | None]:
    """(row, None), or (what is wrong, reason to drop it)."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return error, "not_json"
    return (
        (row, None) if isinstance(row, dict) else ("every line holds one object", "not_an_object")
    )


def line_number(path: Path, compressed: bool, offset: int) -> int:
    """The number of the line that starts at `offset`, from 1."""
    number = 1
    with gzip.open(path) if compressed else open(path, "rb") as file:
        while offset and (block := file.read(min(offset, 1 << 20))):
            number += block.count(b"\n")
            offset -= len(block)
    return number
