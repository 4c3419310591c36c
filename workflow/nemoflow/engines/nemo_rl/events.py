"""Scalars of TensorBoard's event files, read without TensorBoard.

A file is records of length (8 bytes), checksum (4), an Event, checksum (4), little endian
(tensorflow/core/lib/io/record_writer.h). Of an Event: field 2 is the step, 5 a Summary, whose
repeated field 1 has the tag in field 1 and the value in field 2 (tensorflow/core/util/event.proto,
framework/summary.proto). The last record may still be under way.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Events:
    """A file that is read on from where the last look at it ended."""

    def __init__(self, path: Path):
        self.path = path
        self.offset = 0

    def scalars(self) -> Iterator[tuple[int, str, float]]:
        """(step, tag, value) of every scalar written since the last call."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        start = 0
        while len(data) - start >= 16:
            (length,) = struct.unpack_from("<Q", data, start)
            if len(data) - start < length + 16:
                break
            yield from event(data[start + 12 : start + 12 + length])
            start += length + 16
        self.offset += start


def event(data: bytes) -> Iterator[tuple[int, str, float]]:
    """The scalars of one Event."""
    told = dict(fields(data))  # a Summary stands once in an Event
    for number, value in fields(told.get(5, b"")):
        if number == 1:
            scalar = dict(fields(value))
            if isinstance(scalar.get(2), float):
                yield told.get(2, 0), scalar[1].decode(), scalar[2]


def fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(number, value) of a protocol buffer's fields; text and messages as bytes.

    Of numbers of 32 bits all are read as floats, of 64 bits as doubles: no other occur here.
    """
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(data, at)
        elif kind == BYTES:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind in (FIXED32, FIXED64):
            (value,) = struct.unpack_from("<f" if kind == FIXED32 else "<d", data, at)
            at += 4 if kind == FIXED32 else 8
        else:
            return
        yield number, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
