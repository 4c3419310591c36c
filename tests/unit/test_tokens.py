"""Token shards: conservation, splits, receipts, counts."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_corpus
from nemoflow import holdout, tokenizer, tokenizing, tokens
from nemoflow.errors import UserError
from small_corpus import contents, documents, json_lines, state, texts


@pytest.fixture
def build(tmp_path, tiny_tokenizer):
    """Tokenizes all parts of lines of text; returns the joined counts."""

    def run(lines, parts=1, shards=1, name="out", **settings):
        small_corpus.write(tmp_path / "data" / "a.jsonl", lines)
        return small_corpus.tokenized(
            tmp_path / "data",
            tiny_tokenizer,
            tmp_path / name,
            tmp_path / "cache",
            parts,
            shards,
            **settings,
        )

    return run


def test_every_document_once_whatever_the_shards(build, tiny_tokenizer):
    loaded = tokenizer.load(tiny_tokenizer)
    eos = tokenizer.eos_id(tiny_tokenizer)
    expected = [loaded.encode(text, add_special_tokens=False).ids + [eos] for text in texts(60)]
    one = documents(build(json_lines(texts(60))))
    assert sorted(one["train"] + one["valid"] + one["test"]) == sorted(expected)
    assert {split: len(ids) for split, ids in one.items()} == {"train": 48, "valid": 6, "test": 6}
    for parts, shards in ((1, 4), (3, 2), (2, 40)):
        assert documents(build(json_lines(texts(60)), parts, shards, f"{parts}x{shards}")) == one


def test_twenty_documents_have_all_splits(build):
    found = documents(build(json_lines(texts(20)), splits={"valid": 0.001, "test": 0.001}))
    assert {split: len(ids) for split, ids in found.items()} == {"train": 18, "valid": 1, "test": 1}
    found = documents(build(json_lines(["fox " * 9000]), name="one"))
    assert {split: len(ids) for split, ids in found.items()} == {"train": 1, "valid": 0, "test": 0}


def test_a_large_corpus_is_split_by_the_hash_alone(build, monkeypatch):
    for module in (holdout, tokens):
        monkeypatch.setattr(module, "HEAD", 0)
    one = documents(build(json_lines(texts(2000))))
    assert documents(build(json_lines(texts(2000)), 2, 3, "more")) == one
    assert abs(len(one["valid"]) - 200) < 60 and abs(len(one["test"]) - 200) < 60
    other = documents(build(json_lines(texts(2000)), name="seed", seed=1))
    assert other["valid"] != one["valid"]


def test_dropped_rows_have_reasons(build):
    lines = json_lines([*texts(30), "", "  \n", "x"]) + ['{"text": null}', '{"txt": "a"}']
    lines += ['{"text": 3}', '{"text": ', "[]", ""]
    counts = build(lines, parts=2, min_doc_chars=5, max_dropped=0.5)
    dropped = {"missing_text": 1, "not_an_object": 1, "not_json": 1, "text_not_string": 1}
    dropped |= {"empty_text": 3, "too_short": 1}
    assert counts["rows"] == {"in": 38, "kept": 30, "dropped": dropped}
    sizes = [len(line) + 1 for line in lines]
    assert counts["bytes"]["in"] == sum(sizes) - 1  # of a blank line
    assert counts["bytes"]["kept"] == sum(sizes[:30])
    assert counts["bytes"]["dropped"]["empty_text"] == sizes[30] + sizes[31] + sizes[33]
    assert {reason: rows for reason, (rows, _) in counts["by_file"]["a.jsonl"].items()} == (
        dropped | {"kept": 30}
    )
    place = sum(sizes[:36])
    with pytest.raises(UserError, match=rf"web: 4 of 38.*1 not_json \(a\.jsonl, byte {place}\)"):
        build(lines, min_doc_chars=5, name="strict")


def test_nothing_left_is_an_error(build):
    with pytest.raises(UserError, match="corpus web: no document is left to train on"):
        build(json_lines(texts(5)), min_doc_chars=1000)


def test_a_cut_document_keeps_its_eos(build, tiny_tokenizer):
    eos = tokenizer.eos_id(tiny_tokenizer)
    counts = build(json_lines(["one", *texts(9)]), max_doc_tokens=6)
    found = [ids for split in documents(counts).values() for ids in split]
    assert counts["truncated"] == 9
    assert all(len(ids) <= 6 and ids[-1] == eos for ids in found)
    bare = build(json_lines(texts(9)), name="bare", max_doc_tokens=6, add_eos=False)
    assert all(len(ids) == 6 for split in documents(bare).values() for ids in split)


def test_a_vocabulary_beyond_the_dtype_is_refused_before_any_work(build):
    with pytest.raises(UserError, match="token id 299 does not fit dtype uint8"):
        build(json_lines(texts(3)), dtype="uint8")


def test_finished_shards_are_kept_and_damaged_ones_made_again(build, tmp_path):
    lines = json_lines(texts(40))
    counts = build(lines, 1, 3)
    folder = tmp_path / "out" / "0000"
    before = state(folder)
    assert build(lines, 1, 3, max_dropped=0.5) == counts and state(folder) == before
    (folder / "train_00001.bin").write_bytes(before["train_00001.bin"][0][:-2] + b"\0\0")
    (folder / "receipt_00002.json").unlink()
    (folder / "stale_00000.bin").touch()
    (folder / ".train_00002.bin.tmp").touch()
    assert build(lines, 1, 3) == counts
    after = state(folder)
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    kept = {name for name in before if after[name] == before[name]}
    assert kept == {name for name in before if "00000" in name}


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"splits": {"valid": 0.2, "test": 0.1}},
        {"min_doc_chars": 1},
        {"add_eos": False},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_changed_setting_makes_every_shard_again(build, tmp_path, changed):
    lines = json_lines(texts(40))
    build(lines, 1, 3)
    before = state(tmp_path / "out" / "0000")
    build(lines, 1, 3, **changed)
    after = state(tmp_path / "out" / "0000")
    assert not [name for name in before if after.get(name) == before[name]]
    build(lines, 1, 3, "afresh", **changed)
    assert contents(tmp_path / "out" / "0000") == contents(tmp_path / "afresh" / "0000")


def test_another_tokenizer_makes_every_shard_again(build, tmp_path, tiny_tokenizer, fast_tokenizer):
    lines = json_lines(texts(40))
    build(lines)
    arguments = (tmp_path / "data", fast_tokenizer, tmp_path / "out", tmp_path / "cache")
    other = documents(small_corpus.tokenized(*arguments))
    assert other != documents(build(lines, name="first"))


def test_another_plan_leaves_no_leftovers(build, tmp_path):
    lines = json_lines(texts(40))
    build(lines, 1, 5)
    counts = build(lines, 1, 2, max_doc_tokens=5)
    names = {path.name for path in (tmp_path / "out" / "0000").iterdir()}
    prefixes = [shard["prefix"].rsplit("/")[-1] for shard in counts["shards"]]
    expected = {f"{prefix}.{end}" for prefix in prefixes for end in ("bin", "idx")}
    assert names == expected | {"receipt_00000.json", "receipt_00001.json"}


def test_moving_everything_makes_nothing_again(tmp_path, tiny_tokenizer, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    small_corpus.write(here / "data" / "a.jsonl", json_lines(texts(40)))
    shutil.copytree(tiny_tokenizer, here / "tokenizer")

    def run(root):
        return small_corpus.tokenized(
            root / "data", root / "tokenizer", root / "out", root / "cache", 2, 2
        )

    counts = run(here)
    before = [state(here / "out" / part) for part in ("0000", "0001")]
    here.rename(there)
    monkeypatch.setattr(tokenizing, "make", None)  # a call would be an error
    moved = run(there)
    assert [state(there / "out" / part) for part in ("0000", "0001")] == before
    assert {key: moved[key] for key in moved if key != "shards"} == {
        key: counts[key] for key in counts if key != "shards"
    }


def test_killed_between_files_is_carried_on(build, tmp_path, monkeypatch):
    lines = json_lines(texts(40))
    build(lines, 1, 3, "undisturbed")
    write = tokens.write_json
    for _ in range(2):  # each run finishes one more shard, then dies before the next receipt
        written = []

        def dying(path, value, written=written):
            if written:
                raise KeyboardInterrupt
            written.append(path)
            write(path, value)

        monkeypatch.setattr(tokens, "write_json", dying)
        with pytest.raises(KeyboardInterrupt):
            build(lines, 1, 3)
    monkeypatch.setattr(tokens, "write_json", write)
    build(lines, 1, 3)
    assert contents(tmp_path / "out" / "0000") == contents(tmp_path / "undisturbed" / "0000")


def test_only_shards_at_the_beginning_follow_from_the_files_there(monkeypatch):
    for module in (holdout, tokens):
        monkeypatch.setattr(module, "HEAD", 500)
    files = [{"path": f"{n}.jsonl", "bytes": 400, "digest": f"sha256:{n}"} for n in range(4)]
    pieces = [[{**file, "start": 0, "end": 400}] for file in files]
    folder = type("Folder", (), {"digest": "a"})

    def origins(listed):
        return [tokens.origin(each, {"files": listed}, {"seed": 1}, folder) for each in pieces]

    before = origins(files)
    changed = [{**files[0], "digest": "sha256:other"}, *files[1:]]
    told = [one == other for one, other in zip(before, origins(changed), strict=True)]
    assert told == [False, False, True, True]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=300))
def test_lengths_are_described_as_numpy_does(found):
    told = tokens.described({value: found.count(value) for value in found})
    percentiles = np.percentile(found, tokens.PERCENTILES, method="inverted_cdf")
    assert [told[f"p{p}"] for p in tokens.PERCENTILES] == percentiles.tolist()
    assert (told["shortest"], told["longest"]) == (min(found), max(found))
    assert told["mean"] == pytest.approx(np.mean(found), abs=0.051)


def test_a_corpus_counts_what_its_parts_count(build):
    values = texts(50)
    counts = build(json_lines(values), 3, 2)
    lengths = [len(ids) for split in documents(counts).values() for ids in split]
    assert counts["lengths"] == tokens.described({n: lengths.count(n) for n in lengths})
    assert sum(shard["tokens"] for shard in counts["shards"]) == sum(lengths)
