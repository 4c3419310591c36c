"""Listing, pinning and reading sources: local ones and built-in ones, and one of the hub."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import hub_server
from nemoflow import builtin, digests
from nemoflow.corpus import (
    RowCount,
    list_files,
    opened,
    pin,
    pinned,
    read_rows,
    rows,
    texts,
    unread,
)
from nemoflow.errors import UserError
from nemoflow.files import sha256_of

ROWS = [{"text": f"row {i}"} for i in range(10)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read_all(source, cache):
    counts = RowCount()
    files = list_files(source, cache)
    found = [row for file in files for _, row in read_rows(file, source, cache, counts)]
    return found, counts


def test_file_folder_and_glob_name_the_same_rows(tmp_path):
    data = tmp_path / "data"
    (data / "more").mkdir(parents=True)
    (data / "a.jsonl").write_text(LINES)
    (data / "more" / "b.json.gz").write_bytes(gzip.compress(LINES.encode(), mtime=0))
    (data / "README.md").write_text("not data")
    (data / ".hidden.jsonl").write_text("{")
    cache = tmp_path / "cache"
    for local in (data, f"{data}/**/*.js*"):
        source = {"local": str(local), "hub": None}
        files = list_files(source, cache)
        assert [file.path for file in files] == ["a.jsonl", "more/b.json.gz"]
        assert read_all(source, cache)[0] == ROWS + ROWS
    single = {"local": str(data / "a.jsonl")}
    assert [file.path for file in list_files(single, cache)] == ["a.jsonl"]
    assert read_all(single, cache)[0] == ROWS


def test_names_do_not_say_where_the_data_lies(tmp_path):
    listings = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.jsonl").write_text(LINES)
        listings.append(list_files({"local": str(tmp_path / place)}, tmp_path / "cache"))
    assert listings[0] == listings[1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=20),
    st.lists(st.integers(0, 400), max_size=6),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
def test_spans_read_every_row_exactly_once(tmp_path_factory, texts, cuts, newline, last_newline):
    folder = tmp_path_factory.mktemp("spans")
    lines = newline.join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    content = (lines + newline * last_newline).encode()
    (folder / "a.jsonl").write_bytes(content)
    if not content:
        return
    source = {"local": str(folder / "a.jsonl")}
    (file,) = list_files(source, folder)
    whole = list(read_rows(file, source, folder))
    assert [row["text"] for _, row in whole] == texts
    assert all(content[offset : offset + 1] == b"{" for offset, _ in whole)
    edges = sorted({0, len(content), *(min(cut, len(content)) for cut in cuts)})
    spans = zip(edges, edges[1:], strict=False)
    pieces = [row for span in spans for row in read_rows(file, source, folder, span=span)]
    assert pieces == whole


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_bad_lines_are_counted_with_file_and_line(tmp_path, name):
    content = ('\ufeff{"text": "é"}\n\n{"text": \n[1]\n{"text": "\\ud800"}\n' + LINES).encode()
    content += b'{"text": "\xff"}\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found, counts = read_all({"local": str(path)}, tmp_path)
    counts.kept = len(found)
    assert found == [{"text": "é"}, *ROWS]
    assert counts.as_dict() == {
        "in": 15,
        "kept": 11,
        "dropped": {"not_an_object": 1, "not_json": 3},
    }
    assert counts.first == {"not_json": f"{name}, line 3", "not_an_object": f"{name}, line 4"}
    with pytest.raises(UserError, match=rf"4 of 15 rows.*3 not_json \(first: {name}, line 3\)"):
        counts.check(0.2)
    counts.check(0.3)
    (file,) = list_files({"local": str(path)}, tmp_path)
    with pytest.raises(UserError, match=f"{name}, line 3: not_json"):
        list(read_rows(file, {"local": str(path)}, tmp_path))


def test_a_changed_file_is_refused_with_both_digests(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    source = {"local": str(path)}
    (file,) = list_files(source, tmp_path / "cache")
    path.write_text(LINES.replace("row 3", "row 4"))
    with pytest.raises(UserError, match=rf"{path}.*sha256:[0-9a-f]{{64}}.*{file.digest}.*changed"):
        list(read_rows(file, source, tmp_path / "cache"))
    path.unlink()
    with pytest.raises(UserError, match="does not exist any more"):
        list(read_rows(file, source, tmp_path / "cache"))


def test_large_files_are_digested_once_small_ones_each_time(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text(LINES)
    source, cache = {"local": str(tmp_path)}, tmp_path / "cache"
    list_files(source, cache)
    assert not cache.exists()
    monkeypatch.setattr(digests, "SMALL", len(LINES) - 1)
    (file,) = list_files(source, cache)
    monkeypatch.setattr(digests, "open", None, raising=False)
    assert len(list(read_rows(file, source, cache))) == 10


def test_rows_and_texts_of_several_sources(tmp_path):
    path, cache = tmp_path / "a.jsonl", tmp_path / "cache"
    path.write_text(LINES)
    sources = [{"local": str(path)}, {"builtin": "equations", "count": 2}]
    assert list(texts(sources, "text", cache))[:10] == [row["text"] for row in ROWS]
    assert len(list(rows(sources, cache))) == 12
    with pytest.raises(UserError, match="row 1 of .*no text in field txt"):
        list(texts(sources, "txt", cache))
    path.write_text("{")
    with pytest.raises(UserError, match="a.jsonl, line 1: not_json"):
        list(rows(sources, cache))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "exactly one of builtin, local, hub, url"),
        ({"local": "a", "builtin": "equations"}, "exactly one"),
        ({"local": "nowhere/*.jsonl"}, r"nowhere/\*\.jsonl: no such file"),
        ({"builtin": "equations"}, "say how many rows with count"),
        ({"builtin": "equation", "count": 3}, "equation"),
    ],
)
def test_sources_that_cannot_be_listed(tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        list_files(source, tmp_path)


def test_links_are_followed_once_and_broken_ones_refused(tmp_path):
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    (tmp_path / "far/b.jsonl").write_text('{"text": "b"}\n')
    (tmp_path / "data/linked").symlink_to(tmp_path / "far")
    (tmp_path / "data/deep/again").symlink_to(tmp_path / "data")
    source = {"local": str(tmp_path / "data")}
    assert [f.path for f in list_files(source, tmp_path / "c")] == ["linked/b.jsonl"]
    (tmp_path / "data/a.jsonl").symlink_to("nowhere")
    for pattern in ("data", "data/*.jsonl"):
        with pytest.raises(UserError, match=r"data/a\.jsonl is no file, or a link to nothing"):
            list_files({"local": str(tmp_path / pattern)}, tmp_path / "c")


def test_data_of_other_kinds_is_not_left_out_in_silence(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.arrow").touch()
    for local in (tmp_path, tmp_path / "b.arrow", f"{tmp_path}/*"):
        with pytest.raises(UserError, match="b.arrow cannot be read; rows come from .*convert it"):
            list_files({"local": str(local)}, tmp_path / "cache")


def write_every_kind(folder):
    """The same rows as each kind of file; {name: whether it can be cut}."""
    zstd = zstandard.compress(LINES[:40].encode()) + zstandard.compress(LINES[40:].encode())
    (folder / "a.jsonl").write_text(LINES)
    (folder / "b.json.gz").write_bytes(gzip.compress(LINES.encode()))
    (folder / "c.jsonl.zst").write_bytes(zstd)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "d.parquet", row_group_size=3)
    return {"a.jsonl": True, "b.json.gz": False, "c.jsonl.zst": False, "d.parquet": True}


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    kinds = write_every_kind(tmp_path)
    source, cache = {"local": str(tmp_path)}, tmp_path / "cache"
    files = list_files(source, cache)
    assert {file.path: not file.compressed for file in files} == kinds
    for file in files:
        whole, stored = (list(read(file, source, cache)) for read in (read_rows, unread))
        assert [row for _, row in whole] == ROWS and [at for at, _ in whole] == [
            a for a, _ in stored
        ]
        assert file.parquet and stored == whole or json.loads(stored[9][1]) == ROWS[9]
        assert file.digest == f"sha256:{sha256_of(tmp_path / file.path)}"
        with opened(file, source, cache) as stored:
            stored.seek(5)
            assert stored.read(3) == (tmp_path / file.path).read_bytes()[5:8]


def test_parquet_rows_that_are_not_text_are_counted_by_number(tmp_path):
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    found, counts = read_all({"local": str(tmp_path)}, tmp_path / "cache")
    assert [row["text"] for row in found] == ["a", "c"]
    assert counts.first == {"not_utf8": "a.parquet, row 2"} and counts.rows_in == 3


def test_a_data_set_of_the_hub_is_pinned_listed_and_read(tmp_path, monkeypatch):
    hub = hub_server.Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (tmp_path / "made").mkdir()
    write_every_kind(tmp_path / "made")
    content = {f"Good/{p.name}": p.read_bytes() for p in (tmp_path / "made").iterdir()}
    kept = hub.add("nvidia/data-v2.1", {**content, "Bad/a.jsonl": "{}\n"})
    source, cache = (
        {"hub": "nvidia/data-v2.1", "revision": "main", "subset": "Good"},
        tmp_path / "c",
    )
    source = pin(source)
    assert pinned(source) == {"revision": kept.commit} and pinned({"local": "a"}) == {}
    files = list_files(source, cache)
    assert [file.path for file in files] == sorted(content) and not cache.exists()
    kept.commit = "d" * 40  # the branch moves on, what is pinned stays
    kept.branches["old"] = source["revision"]
    for file in files:
        assert [row for _, row in read_rows(file, source, cache)] == ROWS
    asked = len(hub.asked)
    assert read_all(source, cache)[0] == ROWS * 4
    assert not [path for _, path, _ in hub.asked[asked:] if "/blobs/" in path]
    hub.shutdown()
    hub.server_close()


def test_a_source_of_empty_files_is_refused(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(UserError, match="all its files are empty: a.jsonl"):
        list_files({"local": str(tmp_path)}, tmp_path / "cache")


def test_a_damaged_gzip_file_is_named(tmp_path):
    content = gzip.compress(LINES.encode() * 100)
    (tmp_path / "a.jsonl.gz").write_bytes(content[:-20])
    with pytest.raises(UserError, match=r"a\.jsonl\.gz is not a whole gzip file"):
        read_all({"local": str(tmp_path)}, tmp_path / "cache")


class TestBuiltin:
    SOURCE = {"builtin": "equations", "seed": 3, "count": 20}

    def test_is_an_ordinary_file_with_a_stable_name(self, tmp_path):
        (file,) = list_files(self.SOURCE, tmp_path / "one")
        assert file == list_files(self.SOURCE | {"split": "train"}, tmp_path / "two")[0]
        assert file.path.startswith("builtin/equations-")
        found = [row for _, row in read_rows(file, self.SOURCE, tmp_path / "one")]
        assert found == list(builtin.rows("equations", 3, 20, "train"))
        other = list_files(self.SOURCE | {"seed": 4}, tmp_path / "one")[0]
        assert other.path != file.path and other.digest != file.digest

    def test_is_made_again_when_missing_or_changed(self, tmp_path):
        (file,) = list_files(self.SOURCE, tmp_path)
        (tmp_path / file.path).unlink()
        assert len(list(read_rows(file, self.SOURCE, tmp_path))) == 20
        (tmp_path / file.path).write_text("{}\n")
        assert len(list(read_rows(file, self.SOURCE, tmp_path))) == 20

    def test_other_bytes_than_planned_are_explained(self, tmp_path, monkeypatch):
        (file,) = list_files(self.SOURCE, tmp_path)
        (tmp_path / file.path).unlink()
        monkeypatch.setattr(builtin, "rows", lambda name, seed, count, split: [{"text": "other"}])
        with pytest.raises(UserError, match="another version of nemoflow or of Python"):
            list(read_rows(file, self.SOURCE, tmp_path))

    def test_a_failure_leaves_nothing(self, tmp_path, monkeypatch):
        def broken(name, seed, count, split):
            yield {"text": "one"}
            raise RuntimeError

        monkeypatch.setattr(builtin, "rows", broken)
        with pytest.raises(RuntimeError):
            list_files(self.SOURCE, tmp_path)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
