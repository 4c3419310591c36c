"""JSON lines, plain, gzip or zstd: decompressing, reading a range of lines, parsing one."""

import codecs
import gzip
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from nemoflow.errors import UserError

BLOCK = 4 << 20  # bytes read at a time
AT_ONCE = 1 << 12  # bytes of zstd decompressed at a time: at most a block of 128 kB for each 4
WINDOW = 1 << 31  # bytes; the largest of `zstd --long=31`


def decompressed(file: BinaryIO, name: str) -> BinaryIO:
    """The content of a file as a stream: of gzip or zstd where `name` ends so, else the file.

    Several gzip members or zstd frames are one stream. Reading one that is damaged, or ends too
    early, raises UserError with `name`.
    """
    if name.endswith(".gz"):
        return io.BufferedReader(_Gzip(file, name), BLOCK)
    if name.endswith(".zst"):
        return io.BufferedReader(_Zstd(file, name), BLOCK)
    return file


def lines(
    file: BinaryIO, name: str, span: tuple[int, int] | None = None
) -> Iterator[tuple[int, bytes]]:
    """(byte offset, line) of every line that is not blank and starts in the span.

    `file` holds the stored bytes, from its beginning; the span is of a file that is not
    compressed, of another one every line comes.
    """
    content = decompressed(file, name)
    if content is not file:
        yield from _lines(content, 0, None)
        return
    reader = io.BufferedReader(file, BLOCK)  # type: ignore[arg-type]
    try:
        yield from _lines(reader, *(span or (0, None)))
    finally:
        reader.detach()  # else it closes the file


def parse(line: bytes) -> tuple[Any, str | None]:
    """(row, None), or (what is wrong, reason to drop it)."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return error, "not_json"
    return (
        (row, None) if isinstance(row, dict) else ("every line holds one object", "not_an_object")
    )


def line_number(file: BinaryIO, name: str, offset: int) -> int:
    """The number of the line that starts at `offset` of the decompressed file, from 1."""
    content, number = decompressed(file, name), 1
    while offset and (block := content.read(min(offset, BLOCK))):
        number += block.count(b"\n")
        offset -= len(block)
    return number


def _lines(content: BinaryIO, start: int, end: int | None) -> Iterator[tuple[int, bytes]]:
    offset = 0
    if start:
        content.seek(start - 1)  # the line that holds the byte before is not ours
        offset = start - 1 + len(content.readline())
    for line in content:
        if end is not None and offset >= end:
            return
        if line.strip():
            yield offset, line if offset else line.removeprefix(codecs.BOM_UTF8)
        offset += len(line)


class _Gzip(io.RawIOBase):
    """A gzip stream whose faults name the file."""

    def __init__(self, file: BinaryIO, name: str):
        from isal import igzip, isal_zlib  # only where there is gzip

        self._stream, self._name = igzip.IGzipFile(fileobj=file, mode="rb"), name
        self._faults = (EOFError, gzip.BadGzipFile, isal_zlib.IsalError)

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what was decompressed."""
        try:
            return self._stream.readinto(buffer)
        except self._faults as error:
            raise UserError(
                f"{self._name} is not a whole gzip file: {error}; fetch it again"
            ) from error


class _Zstd(io.RawIOBase):
    """A zstd stream whose faults name the file, truncation among them.

    zstandard's own stream_reader ends a truncated file in silence.
    """

    def __init__(self, file: BinaryIO, name: str):
        import zstandard  # only where there is zstd

        self._file, self._name = file, name
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        self._fault = zstandard.ZstdError
        self._frame, self._packed, self._ready = None, memoryview(b""), memoryview(b"")

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what was decompressed, as far as there is some."""
        while not self._ready:
            self._packed = self._packed or memoryview(self._file.read(BLOCK))
            if not self._packed:
                if self._frame is not None:
                    raise UserError(self._told("it ends too early"))
                return 0
            try:
                self._next()
            except self._fault as error:
                raise UserError(self._told(error)) from error
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _next(self) -> None:
        """Decompress the next bytes, up to the end of a frame."""
        if self._frame is None:
            self._frame = self._decompressor.decompressobj()
        given = self._packed[:AT_ONCE]
        self._ready = memoryview(self._frame.decompress(given))
        left = len(self._frame.unused_data) if self._frame.eof else 0
        self._packed = self._packed[len(given) - left :]
        if self._frame.eof:
            self._frame = None

    def _told(self, why: object) -> str:
        return f"{self._name} is not a whole zstd file: {why}; fetch it again"
