"""bin/idx, byte for byte."""

import hashlib
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexed_writer import IndexedWriter
from nemoflow.errors import UserError
from nemoflow.indexed import CODES, IndexedReader, publish


def write(prefix, documents, dtype="int32"):
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add(np.array(document))


def test_golden_bytes(tmp_path):
    write(tmp_path / "a", [[1, 2, 3], [70000]])
    assert (tmp_path / "a.bin").read_bytes().hex() == "01000000020000000300000070110100"
    assert (tmp_path / "a.idx").read_bytes() == (
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, 4, 2, 3)
        + struct.pack("<2i", 3, 1)
        + struct.pack("<2q", 0, 12)
        + struct.pack("<3q", 0, 1, 2)
    )


@pytest.mark.parametrize("dtype", CODES)
def test_code_of_every_dtype(tmp_path, dtype):
    write(tmp_path / "a", [[1, 2], [3]], dtype)
    assert (tmp_path / "a.idx").read_bytes()[17] == CODES[dtype]
    reader = IndexedReader(tmp_path / "a")
    assert reader.tokens.dtype == np.dtype(dtype)
    assert reader.tokens.tolist() == [1, 2, 3]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=20), min_size=1, max_size=30))
def test_reads_back_what_was_written(tmp_path_factory, documents):
    prefix = tmp_path_factory.mktemp("indexed") / "a"
    flat = np.array([token for document in documents for token in document])
    with IndexedWriter(prefix, "uint16") as writer:
        writer.add_many(flat, np.array([len(document) for document in documents]))
    reader = IndexedReader(prefix)
    assert [reader.document(i).tolist() for i in range(len(reader))] == documents
    assert reader.lengths.dtype == np.int32 and reader.offsets.dtype == np.int64
    assert isinstance(reader.tokens, np.memmap) and reader.tokens.tolist() == flat.tolist()
    one_by_one = prefix.with_name("b")
    write(one_by_one, documents, "uint16")
    for end in ("bin", "idx"):
        first, second = (prefix.with_name(f"{name}.{end}").read_bytes() for name in "ab")
        assert first == second


def test_ids_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match="131071 does not fit dtype uint16"):
        write(tmp_path / "a", [[1, 131071]], "uint16")
    with pytest.raises(UserError, match="-1 does not fit"):
        write(tmp_path / "a", [[-1]], "uint16")
    with pytest.raises(UserError, match="float32"):
        IndexedWriter(tmp_path / "a", "float32")
    assert not list(tmp_path.iterdir())


def test_empty_sequences_are_refused(tmp_path):
    with pytest.raises(ValueError, match="positive"):
        write(tmp_path / "a", [[]])


def test_nothing_added_leaves_no_files_not_even_old_ones(tmp_path):
    write(tmp_path / "a", [[1]])
    write(tmp_path / "a", [])
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_finished_pair(tmp_path):
    write(tmp_path / "a", [[1]])
    with pytest.raises(RuntimeError), IndexedWriter(tmp_path / "a", "int32") as writer:
        writer.add(np.array([2, 3]))
        raise RuntimeError
    assert IndexedReader(tmp_path / "a").tokens.tolist() == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.idx"]


@pytest.mark.parametrize(
    ("end", "at", "new", "message"),
    [
        ("idx", 0, b"X", "magic"),
        ("idx", 9, b"\x02", "version 2"),
        ("idx", 17, b"\x07", "dtype code 7"),
        ("idx", 18, b"\x03", "size"),
        ("idx", 34, b"\x02", "offsets"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, end, at, new, message):
    write(tmp_path / "a", [[1, 2, 3], [4]])
    path = tmp_path / f"a.{end}"
    content = bytearray(path.read_bytes())
    content[at : at + 1] = new
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a.idx is damaged.*{message}"):
        IndexedReader(tmp_path / "a")


def test_cut_and_missing_files_are_named(tmp_path):
    write(tmp_path / "a", [[1, 2, 3], [4]])
    (tmp_path / "a.bin").write_bytes(b"1234")
    with pytest.raises(UserError, match=r"a\.bin is damaged: it has 4 bytes"):
        IndexedReader(tmp_path / "a")
    (tmp_path / "a.idx").write_bytes(b"MM")
    with pytest.raises(UserError, match="shorter than its header"):
        IndexedReader(tmp_path / "a")
    (tmp_path / "a.idx").unlink()
    with pytest.raises(UserError, match=r"a\.idx does not exist"):
        IndexedReader(tmp_path / "a")


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_published_ids_are_what_a_writer_writes(tmp_path, dtype):
    documents = [[1, 2, 3], [4], list(range(300)), [5, 6]]
    write(tmp_path / "a", documents, dtype)
    ids, lengths = tmp_path / ".train.tmp", np.array([3, 1, 300, 2], np.int32)
    np.concatenate(documents).astype(dtype).tofile(ids)
    md5 = publish(ids, tmp_path / "b", lengths, dtype)
    for end in ("bin", "idx"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()
    assert md5 == hashlib.md5((tmp_path / "b.idx").read_bytes()).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", "a.idx", "b.bin", "b.idx"}


def test_offsets_beyond_the_range_of_an_int32(tmp_path):
    (tmp_path / "ids").write_bytes(b"")
    publish(tmp_path / "ids", tmp_path / "a", np.full(3, 1 << 30, np.int32), "int32")
    content = (tmp_path / "a.idx").read_bytes()
    assert struct.unpack("<3q", content[34 + 12 : 34 + 36]) == (0, 1 << 32, 1 << 33)


def test_both_files_are_on_disk_before_they_have_their_names(tmp_path, monkeypatch):
    happened = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def told(*given, name=name, real=real):
            happened.append((name, len(list(tmp_path.glob("a.*")))))
            return real(*given)

        monkeypatch.setattr(os, name, told)
    (tmp_path / "ids").write_bytes(b"1234")
    publish(tmp_path / "ids", tmp_path / "a", np.array([1]), "int32")
    assert happened[:2] == [("fsync", 0), ("fsync", 0)]
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", "a.idx"}
