"""Row groups by ranges of bytes, and rows."""

import io
import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow import parquet
from nemoflow.errors import UserError

ROWS = [{"text": f"row {i}", "meta": {"tags": ["a", str(i)], "n": None}} for i in range(100)]


def write(path, rows=ROWS, **told):
    pq.write_table(pa.Table.from_pylist(rows), path, **{"row_group_size": 8, **told})
    return path


class Counting(io.FileIO):
    """A file that counts what is read of it."""

    read_bytes = 0

    def read(self, size=-1):
        found = super().read(size)
        self.read_bytes += len(found)
        return found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("parquet") / "a.parquet")


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, 9000), max_size=8))
def test_spans_hold_every_row_group_once(path, cuts):
    size = path.stat().st_size
    edges = sorted({0, size, *(min(cut, size) for cut in cuts)})
    with open(path, "rb") as file:
        whole = parquet.row_groups(file)
        parts = [parquet.row_groups(file, span) for span in itertools.pairwise(edges)]
    assert whole == [(group, 8 * group) for group in range(13)]
    assert list(itertools.chain(*parts)) == whole


def test_rows_have_their_numbers_and_types(path):
    with open(path, "rb", buffering=0) as file:
        assert list(parquet.rows(file)) == list(enumerate(ROWS))
        end = (path.stat().st_size // 5, path.stat().st_size)
        later = list(parquet.rows(file, end))
        assert 0 < len(later) < 100 and later == list(enumerate(ROWS))[-len(later) :]


def test_only_the_wanted_columns_are_read(tmp_path):
    rows = [{"text": "x", "payload": "y" * 100_000 + str(i)} for i in range(16)]
    path = write(tmp_path / "a.parquet", rows, compression="none", use_dictionary=False)

    with Counting(path) as file:
        texts = parquet.TextColumn(file, "a.parquet", "text")
        found = [len(batch) for group in range(2) for batch in texts.batches(group, 5)]
        assert found == [5, 3, 5, 3]
        assert file.read_bytes < 200_000  # of 1.6 MB: the footer and the texts


def test_text_that_is_not_utf8_is_one_row(tmp_path):
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    with open(tmp_path / "a.parquet", "rb") as file:
        found = dict(parquet.rows(file))
    assert found[0] == {"text": "a"} and found[2] == {"text": "c"}
    assert isinstance(found[1], UnicodeDecodeError)


@pytest.mark.parametrize("cut", [slice(None, -9), slice(None, 100), slice(0, 0)])
def test_a_damaged_file_is_named(path, tmp_path, cut):
    (tmp_path / "b.parquet").write_bytes(path.read_bytes()[cut])
    with (
        open(tmp_path / "b.parquet", "rb") as file,
        pytest.raises(UserError, match="b.parquet is not a whole Parquet file: .*fetch it again"),
    ):
        list(parquet.row_groups(file))


def test_damaged_pages_are_named(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xa5" * 1996
    (tmp_path / "b.parquet").write_bytes(content)
    with (
        open(tmp_path / "b.parquet", "rb") as file,
        pytest.raises(UserError, match="b.parquet is not a whole Parquet file"),
    ):
        list(parquet.rows(file))


def column_of(path, name="text"):
    return parquet.TextColumn(open(path, "rb", buffering=0), "a.parquet", name)


def test_the_texts_of_a_row_group_some_at_a_time(path):
    column = column_of(path)
    assert [column.rows(group) for group in (0, 12)] == [8, 4]
    for size in (3, 8, 100):
        found = [batch.to_pylist() for batch in column.batches(1, size)]
        assert [len(texts) for texts in found] == [min(size, 8 - i) for i in range(0, 8, size)]
        assert sum(found, []) == [f"row {i}" for i in range(8, 16)]


def test_the_size_is_that_of_the_texts_alone(tmp_path):
    """Not of a nested column with a leaf of that name, nor of the others."""
    rows = [{"meta": {"text": i}, "text": f"{i} " * 500, "more": "z" * 9000} for i in range(20)]
    write(tmp_path / "a.parquet", rows, row_group_size=20, use_dictionary=False)
    texts = sum(len(row["text"]) for row in rows)
    assert texts < column_of(tmp_path / "a.parquet").bytes(0) < 1.1 * texts


def test_a_large_row_group_is_read_page_by_page(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "READ", 1 << 14)
    rows = [{"text": str(i) * 200} for i in range(2000)]
    told = {"compression": "none", "use_dictionary": False, "write_batch_size": 16}
    write(tmp_path / "a.parquet", rows, row_group_size=2000, data_page_size=1 << 14, **told)

    file = Counting(tmp_path / "a.parquet")
    column = parquet.TextColumn(file, "a.parquet", "text")
    assert next(column.batches(0, 10)).to_pylist() == [str(i) * 200 for i in range(10)]
    assert file.read_bytes < 400_000 < (tmp_path / "a.parquet").stat().st_size


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("txt", r"a\.parquet: there is no column txt \(text_field\); its columns: text, meta"),
        ("meta", r"a\.parquet: column meta \(text_field\) holds struct<.*>, not text"),
        ("meta.n", r"there is no column meta\.n"),
    ],
)
def test_a_column_that_is_none_of_text_is_named(path, name, message):
    with pytest.raises(UserError, match=message):
        column_of(path, name)


def test_damaged_pages_of_texts_are_named(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xa5" * 396
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"b\.parquet is not a whole Parquet file"):
        list(column_of(tmp_path / "b.parquet").batches(0, 8))
