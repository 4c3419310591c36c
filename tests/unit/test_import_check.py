"""A pair of .bin and .idx in which one thing is wrong: which file, and what."""

import struct

import numpy as np
import pytest

from indexed_writer import IndexedWriter
from nemoflow import import_check
from nemoflow.errors import UserError
from nemoflow.indexed import HEADER, MAGIC
from nemoflow.progress import Bytes

VOCABULARY = 50
HEAD = HEADER.size
OFFSETS, DOCUMENTS = HEAD + 3 * 4, HEAD + 3 * 12  # of three sequences


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """The .bin and .idx of three documents, looked at two entries at a time."""
    monkeypatch.setattr(import_check, "BLOCK", 2)
    with IndexedWriter(tmp_path / "x") as writer:
        writer.add_many(np.arange(8), np.array([3, 1, 4]))
    return tmp_path / "x.bin", tmp_path / "x.idx"


def said(pair):
    """What a check of a pair says, without the folder."""
    with pytest.raises(UserError) as error:
        checked(pair)
    return str(error.value).replace(f"{pair[0].parent}/", "")


def checked(pair):
    index = import_check.check_index(*pair, "int32")
    with Bytes("ids", index.size) as progress:
        import_check.check_ids(index, VOCABULARY, progress)
    assert progress.done == index.size
    return index


def test_a_sound_pair(pair):
    index = checked(pair)
    assert (index.tokens, index.documents, index.lengths.tolist()) == (8, 3, [3, 1, 4])


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (0, b"MMIDIDY", "x.idx: no index of Megatron: it begins with b'MMIDIDY"),
        (1, 2, "x.idx: it has version 2; known is 1"),
        (2, 9, "x.idx: it has dtype code 9, which holds no token ids (1 = uint8, "),
        (2, 7, "x.idx: it has dtype code 7, which holds no token ids"),
        (2, 8, "x.idx: its ids are uint16, the tokenizer's file says dtype: int32; set dtype:"),
        (3, 4, "x.idx: cut short: it has 102 bytes; its 4 sequences and 4 document indices make"),
        (4, 0, "x.idx: too long: it has 102 bytes; its 3 sequences and 0 document indices make 70"),
    ],
)
def test_a_wrong_header(pair, field, value, expected):
    raw = pair[1].read_bytes()
    told = list(HEADER.unpack(raw[:HEAD]))
    told[field] = value
    pair[1].write_bytes(HEADER.pack(*told) + raw[HEAD:])
    assert expected in said(pair)


@pytest.mark.parametrize(
    ("number", "at", "kind", "value", "expected"),
    [
        (1, HEAD + 4, "<i", -1, "x.idx: sequence 1 has -1 tokens"),
        (1, HEAD + 8, "<i", 0, "x.idx: sequence 2 has 0 tokens"),
        (
            1,
            HEAD + 4,
            "<i",
            2,
            "x.idx: sequence 2 begins at byte 16, by the lengths before it at 20",
        ),
        (1, HEAD + 8, "<i", 5, "x.bin: cut short: it has 32 bytes, by x.idx they are 36"),
        (1, OFFSETS, "<q", 4, "x.idx: sequence 0 begins at byte 4, by the lengths before it at 0"),
        (1, OFFSETS + 16, "<q", 0, "x.idx: sequence 2 begins at byte 0, by the lengths before it"),
        (1, DOCUMENTS, "<q", 1, "x.idx: its document indices begin with 1; the first is 0"),
        (1, DOCUMENTS + 24, "<q", 2, "x.idx: its document indices end with 2, and there are 3"),
        (1, DOCUMENTS + 8, "<q", 3, "x.idx: document 1 ends at sequence 2, where it begins is 3"),
        (0, 20, "<i", VOCABULARY, "x.bin: id 50 at position 5 (sequence 2); the tokenizer has 50"),
        (0, 12, "<i", -7, "x.bin: id -7 at position 3 (sequence 1)"),
    ],
)
def test_a_wrong_number(pair, number, at, kind, value, expected):
    raw = bytearray(pair[number].read_bytes())
    struct.pack_into(kind, raw, at, value)
    pair[number].write_bytes(raw)
    assert expected in said(pair)


@pytest.mark.parametrize(
    ("number", "cut", "expected"),
    [
        (1, lambda raw: b"", "x.idx: no index of Megatron: it is empty"),
        (1, lambda raw: raw[:10], "x.idx: cut short: 10 bytes, its header alone has 34"),
        (1, lambda raw: raw[:-5], "x.idx: cut short: it has 97 bytes; its 3 sequences and 4"),
        (1, lambda raw: raw + b"1", "x.idx: too long: it has 103 bytes"),
        (1, lambda raw: raw + b"123", "x.idx: it has a mode for each sequence: of a multimodal"),
        (1, lambda raw: HEADER.pack(MAGIC, 1, 4, 0, 1) + bytes(8), "x.idx: it has no sequences"),
        (0, lambda raw: raw[:-1], "x.bin: cut short: it has 31 bytes, by x.idx they are 32"),
        (0, lambda raw: raw + raw[:4], "x.bin: too long: it has 36 bytes, by x.idx they are 32"),
    ],
)
def test_a_wrong_size(pair, number, cut, expected):
    pair[number].write_bytes(cut(pair[number].read_bytes()))
    assert expected in said(pair)


def test_a_document_without_a_sequence_is_none_of_our_business(pair):
    raw = pair[1].read_bytes()
    told = HEADER.pack(MAGIC, 1, 4, 3, 4) + raw[HEAD:DOCUMENTS] + struct.pack("<4q", 0, 2, 2, 3)
    pair[1].write_bytes(told)
    assert checked(pair).documents == 3
