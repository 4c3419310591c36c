"""Rows of a corpus to its texts; what cannot be used is counted, by reason."""

import codecs
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from nemoflow.ledger import KEPT, Ledger
from nemoflow.source_file import PARQUET

if TYPE_CHECKING:
    import pyarrow as pa

NUL = "nul_character"  # kept, and noted
OPENS, CLOSES, NEWLINE = b"{}\n"
FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Block(NamedTuple):
    """Some rows of a file: the texts that are kept, and what became of all of them.

    `texts` are UTF-8; `offsets` int64[texts] their places (byte of the line in the decompressed
    file, or number of the Parquet row), `sizes` int64[texts] the bytes of their rows.
    """

    path: str
    texts: list[bytes]
    offsets: np.ndarray
    sizes: np.ndarray
    ledger: Ledger

    def drop(self, dropped: Mapping[int, str]) -> "Block":
        """The block without some of its texts, {place in `texts`: reason}, which it counts."""
        unit = "row" if self.path.endswith(PARQUET) else "byte"
        for i, reason in dropped.items():
            where = f"{unit} {self.offsets[i]}"
            self.ledger.move(self.path, reason, int(self.sizes[i]), where)
        left = [i for i in range(len(self.texts)) if i not in dropped]
        texts = [self.texts[i] for i in left]
        return self._replace(texts=texts, offsets=self.offsets[left], sizes=self.sizes[left])


class Rows:
    """Reads the texts of rows.

    `text_field` is the field, or column, that holds them; texts of fewer than `min_doc_chars`
    characters are dropped. After `most` kept texts, where given, no further row is looked at;
    `left` is how many are still to come.
    """

    def __init__(self, text_field: str, min_doc_chars: int = 0, most: int | None = None):
        self.text_field, self.left, self._shortest = text_field, most, min_doc_chars
        fields = [("text", str, msgspec.field(name=text_field))]
        self._decoder = msgspec.json.Decoder(msgspec.defstruct("Row", fields, gc=False))

    def lines(self, path: str, lines: memoryview, base: int) -> Block:
        """The texts of whole lines of JSON, the first of which begins at byte `base`."""
        if self.left is None and len(lines) and (found := self._at_once(lines)):
            texts, starts, sizes = found
            if min(map(len, texts)) >= max(self._shortest, 1) and not any(map(str.isspace, texts)):
                ledger = Ledger()
                ledger.count(path, KEPT, len(texts), len(lines))
                kept = [text.encode() for text in texts]
                ledger.note(NUL, sum(b"\0" in text for text in kept))
                return Block(path, kept, starts + base, sizes, ledger)
        rows, start = [], base
        for line in io.BytesIO(lines):
            content = line if start else line.removeprefix(codecs.BOM_UTF8)
            if content.strip():
                rows.append((start, len(line), *self._text_of(content)))
            start += len(line)
        return self._counted(path, "byte", rows)

    def values(self, path: str, values: "pa.Array", first: int) -> Block:
        """The texts of a Parquet column, the first of which is that of row `first`."""
        texts, wrong = column_texts(values)
        rows = [
            (first + i, len(text or b""), text, "not_utf8" if i in wrong else None)
            for i, text in enumerate(texts)
        ]
        return self._counted(path, "row", rows)

    def _at_once(self, lines: memoryview) -> tuple[list[str], np.ndarray, np.ndarray] | None:
        """(texts, starts, sizes) where every line is one object that has a text, else None.

        A line that begins with { and ends with } holds no part of an object that goes on in the
        next one: in JSON no { follows a }. So as many objects as lines means one in each.
        """
        content = np.frombuffer(lines, np.uint8)
        ends = np.flatnonzero(content == NEWLINE)
        if not len(ends) or ends[-1] != len(content) - 1:
            ends = np.append(ends, len(content))
        starts = np.concatenate([[0], ends[:-1] + 1])
        if (content[starts] != OPENS).any() or (content[ends - 1] != CLOSES).any():
            return None
        try:
            rows = self._decoder.decode_lines(lines)
        except FAULTS:
            return None
        if len(rows) != len(ends):
            return None
        return [row.text for row in rows], starts, np.minimum(ends + 1, len(content)) - starts

    def _text_of(self, line: bytes) -> tuple[bytes | None, str | None]:
        """(text, None) of a line, or (None, the reason to drop it)."""
        try:
            return self._decoder.decode(line).text.encode(), None
        except FAULTS:
            return None, fault(line, self.text_field)

    def _counted(
        self, path: str, unit: str, rows: list[tuple[int, int, bytes | None, str | None]]
    ) -> Block:
        """The block of rows (place, bytes, text, reason to drop it), up to the last one asked."""
        ledger, kept = Ledger(), []
        for place, size, text, reason in rows:
            if self.left == 0:
                break
            if not reason:
                reason = "empty_text" if text is None else self._unwanted_bytes(text)
            if reason:
                ledger.count(path, reason, 1, size, f"{unit} {place}")
                continue
            ledger.count(path, KEPT, 1, size)
            ledger.note(NUL, b"\0" in text)
            kept.append((place, size, text))
            if self.left is not None:
                self.left -= 1
        places = np.array([place for place, _, _ in kept], np.int64)
        sizes = np.array([size for _, size, _ in kept], np.int64)
        return Block(path, [text for _, _, text in kept], places, sizes, ledger)

    def _unwanted(self, text: str) -> str | None:
        """The reason to drop a text, or None."""
        if not text or text.isspace():
            return "empty_text"
        return "too_short" if len(text) < self._shortest else None

    def _unwanted_bytes(self, text: bytes) -> str | None:
        """The same of a text in UTF-8, decoded only where its first bytes leave a doubt."""
        if len(text) >= 4 * self._shortest and not text[:16].decode(errors="ignore").isspace():
            return None if text else "empty_text"
        return self._unwanted(text.decode())


def fault(line: bytes, text_field: str) -> str:
    """Why a line has no text: the reason to drop it."""
    try:
        row = msgspec.json.decode(line.decode())
    except UnicodeDecodeError:
        return "not_utf8"
    except (msgspec.DecodeError, RecursionError):
        return "lone_surrogate" if has_lone_surrogate(line) else "not_json"
    if not isinstance(row, dict):
        return "not_an_object"
    if text_field not in row:
        return "missing_text"
    return "empty_text" if row[text_field] is None else "text_not_string"


def has_lone_surrogate(line: bytes) -> bool:
    """Whether a line is JSON, but for half of a surrogate pair: no UTF-8 can hold it."""
    try:
        found: Any = json.loads(line)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def column_texts(values: "pa.Array") -> tuple[list[bytes | None], set[int]]:
    """(texts, places of those that are not UTF-8) of a column of text."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    texts = values.cast(pa.large_binary()).to_pylist()
    try:
        values.cast(pa.large_string()).validate(full=True)
    except pa.ArrowInvalid:
        return texts, {i for i, text in enumerate(texts) if text and not is_utf8(text)}
    return texts, set()


def is_utf8(text: bytes) -> bool:
    """Whether bytes are text."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
