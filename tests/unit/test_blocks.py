"""Pieces to texts: every row exactly once, whatever the cuts, the blocks and the format."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import small_corpus
from nemoflow import blocks, corpus
from nemoflow.errors import UserError
from nemoflow.ledger import Ledger
from nemoflow.text_rows import Rows

VALUES = ["one", "", "naïve\n", "x" * 3000, "東京 " * 40, "a\0b", "  ", "\u2028 last"] * 6
KEPT = [value.encode() for value in VALUES if value.strip()]


def read(data, cache, cuts=(), **told):
    """(texts, their places, ledger, texts of each block) of a folder's rows."""
    source, pieces = small_corpus.pieces_of(data, cache, cuts)
    rows, ledger, found = Rows("text", **told), Ledger(), []
    for unit in blocks.units(pieces, source, cache, rows):
        found.append(unit())
        ledger.add(found[-1].ledger)
    texts = [text for block in found for text in block.texts]
    places = [(block.path, place) for block in found for place in block.offsets.tolist()]
    return texts, places, ledger, [len(block.texts) for block in found]


LINES = [
    ('{"text": "abc"}', "kept"),
    ('{"n": [{}], "text": "naïve \\n 東"}', "kept"),
    (json.dumps({"text": "y" * 700}), "kept"),
    ('{"text": " "}', "empty_text"),
    ('{"text": 3}', "text_not_string"),
    ('{"text": "a}', "not_json"),
    ("{", "not_json"),
    ("[]", "not_an_object"),
    ('{"text": "\\ud800"}', "lone_surrogate"),
    ("", None),
    (" \t", None),
]
LINES = [(line.encode(), reason) for line, reason in LINES] + [(b'{"text": "\xff"}', "not_utf8")]
ROWS = st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from([b"\n", b"\r\n"])), max_size=25)


@given(
    ROWS,
    st.lists(st.integers(0, 2000), max_size=4),
    st.sampled_from([1, 9, 64, 1000, 1 << 20]),
    st.sampled_from([0, 1, 50]),
    st.booleans(),
    st.booleans(),
)
def test_every_row_once_whatever_the_cuts(tmp_path_factory, rows, cuts, block, slack, end, mark):
    content, expected, start = b"\xef\xbb\xbf" * mark, [], 0
    for (line, reason), ending in rows:
        content += line + ending
        if reason:
            expected.append((start, reason, len(content) - start))
        start = len(content)
    if rows and not end and rows[-1][0][1]:
        content = content.removesuffix(rows[-1][1])
        expected[-1] = (*expected[-1][:2], len(content) - expected[-1][0])
    folder = tmp_path_factory.mktemp("blocks")
    (folder / "data").mkdir()
    (folder / "data" / "a.jsonl").write_bytes(content)
    if not content:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        patch.setattr(blocks, "SLACK", slack)
        texts, places, ledger, _ = read(folder / "data", folder / "cache", cuts)
    kept = [start for start, reason, _ in expected if reason == "kept"]
    assert [place for _, place in places] == kept
    lines = [content[start:].removeprefix(b"\xef\xbb\xbf").split(b"\n")[0] for start in kept]
    assert texts == [json.loads(line)["text"].encode() for line in lines]
    found = {}
    for _, reason, size in expected:
        one = found.setdefault(("a.jsonl", reason), [0, 0])
        one[:] = one[0] + 1, one[1] + size
    assert {key: [ledger.rows[key], ledger.bytes[key]] for key in ledger.rows} == found


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 2000)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def lines_of(values):
    return [json.dumps({"text": value}).encode() + b"\n" for value in values]


def packed(values, pack, members=3):
    """Lines packed in some members, cut in the middle of a line."""
    joined = b"".join(lines_of(values))
    size = -(-len(joined) // members)
    return b"".join(pack(joined[i : i + size]) for i in range(0, len(joined), size))


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.ZstdCompressor().compress)],
)
def test_packed_lines_are_those_of_the_plain_file(data, tmp_path, small, name, pack):
    (data / "a.jsonl").write_bytes(b"".join(lines_of(VALUES)))
    texts, places, ledger, sizes = read(data, tmp_path)
    assert texts == KEPT and len(sizes) > 5
    (data / "a.jsonl").unlink()
    (data / name).write_bytes(packed(VALUES, pack))
    found = read(data, tmp_path)
    assert found[0] == KEPT and len(found[3]) > 5
    assert [place for _, place in found[1]] == [place for _, place in places]
    assert found[2].facts()["bytes"] == ledger.facts()["bytes"]


def table(values, kind=None, dictionary=False, **more):
    column = pa.array(values, kind)
    return pa.table({**more, "text": column.dictionary_encode() if dictionary else column})


def nested(values):
    """Another column that has a leaf of the same name, and hardly any bytes."""
    return pa.array([{"text": 1} for _ in values])


@pytest.mark.parametrize("group", [3, 16, 1000])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()], ids=str)
@pytest.mark.parametrize("dictionary", [False, True])
def test_parquet_has_the_texts_of_the_plain_file(data, tmp_path, small, group, kind, dictionary):
    told = {"row_group_size": group, "data_page_size": 500, "use_dictionary": dictionary}
    made = table(VALUES, kind, dictionary, meta=nested(VALUES))
    pq.write_table(made, data / "a.parquet", dictionary_pagesize_limit=900, **told)
    size = (data / "a.parquet").stat().st_size
    for cuts in ((), (1, 100, 2000), range(0, size, 397)):
        texts, places, ledger, sizes = read(data, tmp_path, cuts)
        assert texts == KEPT
        assert places == [("a.parquet", i) for i, value in enumerate(VALUES) if value.strip()]
        assert ledger.totals(ledger.rows) == {
            "in": len(VALUES),
            "kept": len(KEPT),
            "dropped": {"empty_text": len(VALUES) - len(KEPT)},
        }
    if group == 1000 and not dictionary:
        assert len(sizes) > 5  # one row group, larger than a block


def test_nulls_and_what_is_not_utf8_are_counted_in_parquet(data, tmp_path):
    values = [b"a", None, b"\xff", b"", b"c"]
    texts = pa.array(values, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), data / "a.parquet", row_group_size=2)
    texts, places, ledger, _ = read(data, tmp_path)
    assert texts == [b"a", b"c"] and places == [("a.parquet", 0), ("a.parquet", 4)]
    assert ledger.totals(ledger.rows)["dropped"] == {"empty_text": 2, "not_utf8": 1}
    assert ledger.first["not_utf8"] == ["a.parquet, row 2"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"txt": ["a"]}, r"a\.parquet: there is no column text \(text_field\); its columns: txt"),
        ({"text": [3]}, r"a\.parquet: column text \(text_field\) holds int64, not text"),
        ({"text": [["a"]]}, r"holds list<.*>, not text"),
    ],
)
def test_columns_without_text_are_refused(data, tmp_path, column, message):
    pq.write_table(pa.table(column), data / "a.parquet")
    with pytest.raises(UserError, match=message):
        read(data, tmp_path)


def test_damaged_files_are_named(data, tmp_path):
    content = gzip.compress(b"".join(lines_of(["abc" * 99] * 999)))
    (data / "a.jsonl.gz").write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"a\.jsonl\.gz is not a whole gzip file"):
        read(data, tmp_path)
    (data / "a.jsonl.gz").unlink()
    pq.write_table(table(VALUES), data / "b.parquet")
    (data / "b.parquet").write_bytes((data / "b.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"b\.parquet is not a whole Parquet file"):
        read(data, tmp_path)


def test_a_line_longer_than_many_blocks_is_one_row(data, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)
    monkeypatch.setattr(blocks, "SLACK", 8)
    values = ["a", "z" * 5000, "b"]
    (data / "a.jsonl").write_bytes(b"".join(lines_of(values)))
    texts, _, _, sizes = read(data, tmp_path, (3, 70, 2000, 5020))
    assert texts == [b"a", b"z" * 5000, b"b"] and len(sizes) > 70


def test_a_file_that_becomes_shorter_does_not_hang():
    file = io.BytesIO(b'{"text": "abc')
    view, start = blocks.lines_of(file, 10_000, 0, 5, bytearray(10))
    assert (bytes(view), start) == (b'{"text": "abc', 0)


def test_blocks_are_read_when_they_are_called(data, tmp_path, monkeypatch):
    """Who does not want a block does not read it, and who wants it does so alone."""
    monkeypatch.setattr(blocks, "BLOCK", 500)
    (data / "a.jsonl").write_bytes(b"".join(lines_of(VALUES)))
    source, pieces = small_corpus.pieces_of(data, tmp_path)
    everything = []
    for unit in blocks.units(pieces, source, tmp_path, Rows("text")):
        everything.append(unit().texts)
    read_ = []
    real = blocks.read
    monkeypatch.setattr(blocks, "read", lambda *given: (read_.append(1), real(*given))[1])
    for wanted in (0, 3, len(everything) - 1):
        for number, unit in enumerate(blocks.units(pieces, source, tmp_path, Rows("text"))):
            if number == wanted:
                assert unit().texts == everything[number]
    assert len(read_) == 3 < len(everything)


def test_nothing_is_opened_behind_the_last_row_that_is_asked_for(data, tmp_path, monkeypatch):
    for name in "abc":
        (data / f"{name}.jsonl").write_bytes(b"".join(lines_of(["x", "y"] * 20)))
    opened, real = [], corpus.opened
    monkeypatch.setattr(
        corpus, "opened", lambda file, *rest: (opened.append(file.path), real(file, *rest))[1]
    )
    monkeypatch.setattr(blocks, "BLOCK", 100)
    texts, places, ledger, sizes = read(data, tmp_path, most=45)
    assert len(texts) == 45 == ledger.totals(ledger.rows)["in"]
    assert places[-1] == ("b.jsonl", 4 * len(lines_of("x")[0])) and sizes[-1] > 0
    assert opened == ["a.jsonl", "b.jsonl"]


def test_what_a_store_holds_is_read_in_larger_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 10)
    monkeypatch.setattr(blocks, "REMOTE_BLOCK", 100)
    content = b"".join(lines_of(["x"] * 30))
    piece = {
        "path": "a.jsonl",
        "bytes": len(content),
        "start": 0,
        "end": len(content),
        "digest": "etag:x",
    }
    found = [unit() for unit in blocks._units(io.BytesIO(content), piece, Rows("text"))]
    assert len(found) == -(-len(content) // 100) and sum(len(b.texts) for b in found) == 30
