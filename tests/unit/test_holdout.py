"""Which documents are held out, whatever the parts."""

import gzip
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import small_corpus
from nemoflow import blocks, holdout
from nemoflow.text_rows import Rows
from small_corpus import SETTINGS, json_lines, texts


@pytest.fixture
def small_head(monkeypatch):
    def set_to(size):
        monkeypatch.setattr(holdout, "HEAD", size)

    return set_to


@pytest.fixture
def splits_of(tmp_path):
    """{(file, place): split} of all documents, as the parts that hold them see it."""

    def run(parts=1, shards=1, **told):
        settings, cache = SETTINGS | told, tmp_path / "cache"
        source, plan = small_corpus.planned(tmp_path / "data", cache, parts, shards)
        sizes = {file["path"]: file["bytes"] for file in plan["files"]}
        found = {}
        for part in range(parts):
            held = holdout.holdout(plan, part, settings, source, cache)
            pieces = [piece for shard in plan["parts"][part] for piece in shard]
            pieces = [{**piece, "bytes": sizes[piece["path"]]} for piece in pieces]
            rows = Rows("text", settings["min_doc_chars"], settings["sample"])
            for unit in blocks.units(pieces, source, cache, rows):
                block = unit()
                codes = held.codes(block.path, block.offsets).tolist()
                for place, code in zip(block.offsets.tolist(), codes, strict=True):
                    assert (block.path, place) not in found
                    found[block.path, place] = holdout.SPLITS[code]
        return found

    return run


def write(tmp_path, files):
    for name, values in files.items():
        small_corpus.write(tmp_path / "data" / name, json_lines(values))


def counted(found):
    return dict(Counter(found.values()))


def test_small_corpora_have_all_splits(tmp_path, splits_of):
    write(tmp_path, {"a.jsonl": texts(15), "b.jsonl": texts(5)})
    rare = {"valid": 1e-6, "test": 1e-6}
    assert counted(splits_of(splits=rare)) == {"train": 18, "valid": 1, "test": 1}
    none = {"valid": 0, "test": 0}
    assert counted(splits_of(splits=none)) == {"train": 20}
    half = {"valid": 0.5, "test": 0.5}
    assert counted(splits_of(splits=half)) == {"train": 1, "valid": 10, "test": 9}


@pytest.mark.parametrize(("count", "left"), [(1, {"train": 1}), (2, {"train": 1, "valid": 1})])
def test_training_keeps_one(tmp_path, splits_of, count, left):
    write(tmp_path, {"a.jsonl": ["fox " * 5000] * count})
    assert counted(splits_of()) == left


def test_a_large_corpus_has_validation_whatever_its_fraction(tmp_path, splits_of, small_head):
    small_head(1000)
    write(tmp_path, {"a.jsonl": texts(2000)})
    found = splits_of(splits={"valid": 1e-6, "test": 1e-6})
    assert counted(found) == {"train": 1998, "valid": 1, "test": 1}
    assert all(place < 1000 for (_, place), split in found.items() if split != "train")


def test_exactly_the_fraction_of_the_beginning_and_about_that_after(
    tmp_path, splits_of, small_head
):
    small_head(10_000)
    write(tmp_path, {"a.jsonl": texts(3000)})
    found = splits_of(splits={"valid": 0.2, "test": 0.1})
    at_beginning = {key: split for key, split in found.items() if key[1] < 10_000}
    count = len(at_beginning)
    assert Counter(at_beginning.values()) == {
        "valid": round(0.2 * count),
        "test": round(0.1 * count),
        "train": count - round(0.2 * count) - round(0.1 * count),
    }
    told = counted(found)
    assert abs(told["valid"] - 600) < 100 and abs(told["test"] - 300) < 80


HEADS = (0, 1, 300, 2500, 1 << 20)


def same_for_all_parts(splits_of, **told):
    one = splits_of(**told)
    for parts, shards in ((2, 1), (3, 3), (12, 1)):
        assert splits_of(parts, shards, **told) == one
    return one


@pytest.mark.parametrize("head", HEADS)
def test_parts_and_blocks_change_nothing(tmp_path, splits_of, small_head, monkeypatch, head):
    small_head(head)
    values = [text * (i % 7 == 0) for i, text in enumerate(texts(140))]  # most rows are dropped
    write(tmp_path, {"a.jsonl": values, "b.jsonl": texts(40), "c.jsonl": values[::-1]})
    one = same_for_all_parts(splits_of)
    monkeypatch.setattr(blocks, "BLOCK", 100)
    assert same_for_all_parts(splits_of) == one
    assert set(one.values()) == {"train", "valid", "test"}


@pytest.mark.parametrize("head", HEADS)
def test_nor_where_little_of_what_is_stored_is_text(tmp_path, splits_of, small_head, head):
    """The beginning is bounded in stored bytes too: a part that starts behind it reads nothing."""
    small_head(head)
    (tmp_path / "data").mkdir()
    for name in "abc":
        waste = pa.array([np.random.default_rng(i).bytes(200) for i in range(120)])
        table = pa.table({"text": texts(120), "waste": waste})
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet", row_group_size=20)
    same_for_all_parts(splits_of)


@pytest.mark.parametrize("head", HEADS)
def test_nor_where_much_is(tmp_path, splits_of, small_head, head):
    small_head(head)
    (tmp_path / "data").mkdir()
    for name in "abcd":
        lines = "".join(line + "\n" for line in json_lines([text * 9 for text in texts(60)]))
        (tmp_path / "data" / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    same_for_all_parts(splits_of)


def test_a_part_behind_the_beginning_reads_nothing(tmp_path, splits_of, small_head, monkeypatch):
    small_head(100)
    write(tmp_path, {"a.jsonl": texts(50), "b.jsonl": texts(50)})
    read = []
    monkeypatch.setattr(holdout, "read_head", lambda *given: read.append(given))
    splits_of(parts=10)
    assert len(read) == 1


def test_the_choice_follows_from_seed_and_corpus(tmp_path, splits_of):
    write(tmp_path, {"a.jsonl": texts(100)})
    one = splits_of()
    assert splits_of() == one
    assert splits_of(seed=1) != one != splits_of(corpus="code")


def test_a_sample_has_its_own_exact_choice(tmp_path, splits_of):
    write(tmp_path, {"a.jsonl": texts(30), "b.jsonl": texts(30)})
    found = splits_of(sample=40)
    assert counted(found) == {"train": 32, "valid": 4, "test": 4}
    assert len([1 for path, _ in found if path == "b.jsonl"]) == 10
