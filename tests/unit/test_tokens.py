"""Token shards: conservation, splits, receipts."""

import json

import numpy as np
import pytest

from nemoflow import tokenizer, tokens
from nemoflow.corpus import list_files
from nemoflow.errors import UserError
from nemoflow.indexed import IndexedReader
from nemoflow.plan import make_plan

SETTINGS = {
    "corpus": "web",
    "text_field": "text",
    "dtype": "uint16",
    "add_eos": True,
    "min_chars": 0,
    "max_tokens": None,
    "splits": {"valid": 0.1, "test": 0.1},
    "seed": 42,
    "max_dropped": 0.01,
}


def texts(count):
    return [f"document {i} counts to {i * 7}." + " fox" * (i % 5) for i in range(count)]


@pytest.fixture
def build(tmp_path, tiny_tokenizer):
    """Tokenizes all parts of lines of text; returns the joined counts."""

    def run(lines, parts=1, shards=1, name="out", **settings):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "a.jsonl").write_text("".join(line + "\n" for line in lines))
        source = {"local": str(data)}
        plan = make_plan(list_files(source, tmp_path / "cache"), parts, shards)
        made = [
            tokens.tokenize_part(
                plan,
                part,
                tiny_tokenizer,
                tmp_path / name / f"{part:04d}",
                SETTINGS | {"source": source} | settings,
                tmp_path / "cache",
            )
            for part in range(parts)
        ]
        return tokens.join_parts(made, "web")

    return run


def documents(counts):
    """{split: sorted documents as lists of ids} read back from the shards."""
    found = {"train": [], "valid": [], "test": []}
    for shard in counts["shards"]:
        reader = IndexedReader(shard["prefix"])
        assert (len(reader), len(reader.tokens)) == (shard["sequences"], shard["tokens"])
        found[shard["split"]] += [reader.document(i).tolist() for i in range(len(reader))]
    return {split: sorted(ids) for split, ids in found.items()}


def json_lines(values):
    return [json.dumps({"text": value}) for value in values]


def test_every_document_once_whatever_the_shards(build, tiny_tokenizer):
    loaded = tokenizer.load(tiny_tokenizer)
    eos = tokenizer.eos_id(tiny_tokenizer)
    expected = [loaded.encode(text, add_special_tokens=False).ids + [eos] for text in texts(60)]
    one = documents(build(json_lines(texts(60))))
    assert sorted(one["train"] + one["valid"] + one["test"]) == sorted(expected)
    assert {split: len(ids) for split, ids in one.items()} == {"train": 48, "valid": 6, "test": 6}
    for parts, shards in ((1, 4), (3, 2), (5, 40)):
        assert documents(build(json_lines(texts(60)), parts, shards, f"{parts}x{shards}")) == one


def test_twenty_documents_have_all_splits(build):
    found = documents(build(json_lines(texts(20)), splits={"valid": 0.001, "test": 0.001}))
    assert {split: len(ids) for split, ids in found.items()} == {"train": 18, "valid": 1, "test": 1}
    found = documents(build(json_lines(texts(1)), name="one"))
    assert {split: len(ids) for split, ids in found.items()} == {"train": 1, "valid": 0, "test": 0}


def test_a_large_corpus_is_split_by_the_hash_alone(build, monkeypatch):
    monkeypatch.setattr(tokens, "SMALL", 0)
    one = documents(build(json_lines(texts(2000))))
    assert documents(build(json_lines(texts(2000)), 2, 3, "more")) == one
    assert abs(len(one["valid"]) - 200) < 60 and abs(len(one["test"]) - 200) < 60
    other = documents(build(json_lines(texts(2000)), name="seed", seed=1))
    assert other["valid"] != one["valid"]


def test_dropped_rows_have_reasons(build):
    lines = json_lines([*texts(30), "", "  \n", "x"]) + ['{"text": null}', '{"txt": "a"}']
    lines += ['{"text": 3}', '{"text": ', "[]", ""]
    counts = build(lines, min_chars=5, max_dropped=0.2)
    assert counts["rows"] == {
        "in": 38,
        "kept": 30,
        "dropped": {
            "empty_text": 3,
            "missing_text": 1,
            "not_an_object": 1,
            "not_json": 1,
            "text_not_string": 1,
            "too_short": 1,
        },
    }
    with pytest.raises(UserError, match=r"4 of 38 rows.*1 not_json \(first: a\.jsonl, line 37\)"):
        build(lines, min_chars=5, name="strict")


def test_nothing_left_is_an_error(build):
    with pytest.raises(UserError, match="corpus web: no document is left to train on"):
        build(json_lines(texts(5)), min_chars=1000)


def test_a_cut_document_keeps_its_eos(build, tiny_tokenizer):
    eos = tokenizer.eos_id(tiny_tokenizer)
    counts = build(json_lines(["one", *texts(9)]), max_tokens=6)
    found = [ids for split in documents(counts).values() for ids in split]
    assert counts["truncated"] == 9
    assert all(len(ids) <= 6 and ids[-1] == eos for ids in found)
    bare = build(json_lines(texts(9)), name="bare", max_tokens=6, add_eos=False)
    assert all(len(ids) == 6 for split in documents(bare).values() for ids in split)


def test_a_vocabulary_beyond_the_dtype_is_refused_before_any_work(build):
    with pytest.raises(UserError, match="token id 299 does not fit dtype uint8"):
        build(json_lines(texts(3)), dtype="uint8")


def state(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_finished_shards_are_kept_and_damaged_ones_made_again(build, tmp_path):
    lines = json_lines(texts(40))
    counts = build(lines, 1, 3)
    folder = tmp_path / "out" / "0000"
    before = state(folder)
    assert build(lines, 1, 3) == counts and state(folder) == before
    (folder / "train_00001.bin").write_bytes(before["train_00001.bin"][0][:-2] + b"\0\0")
    (folder / "receipt_00002.json").unlink()
    (folder / "stale_00000.bin").touch()
    assert build(lines, 1, 3) == counts
    after = state(folder)
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    kept = {name for name in before if after[name] == before[name]}
    assert kept == {name for name in before if "00000" in name}


def test_another_plan_or_setting_leaves_no_leftovers(build, tmp_path):
    lines = json_lines(texts(40))
    build(lines, 1, 5)
    counts = build(lines, 1, 2, max_tokens=5)
    names = {path.name for path in (tmp_path / "out" / "0000").iterdir()}
    expected = {
        f"{shard['prefix'].rsplit('/')[-1]}.{e}"
        for shard in counts["shards"]
        for e in ("bin", "idx")
    }
    assert names == expected | {"receipt_00000.json", "receipt_00001.json"}


def test_killed_between_files_is_carried_on(build, tmp_path, monkeypatch):
    lines = json_lines(texts(40))
    counts = build(lines, 1, 3, "undisturbed")
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
    undisturbed, resumed = (state(tmp_path / name / "0000") for name in ("undisturbed", "out"))
    assert {n: c for n, (c, _) in resumed.items()} == {n: c for n, (c, _) in undisturbed.items()}
    assert sum(shard["tokens"] for shard in counts["shards"]) == sum(
        np.frombuffer(content, np.uint16).size
        for name, (content, _) in resumed.items()
        if name.endswith("bin")
    )
