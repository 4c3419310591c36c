"""Existing bin/idx shards as a corpus: checked and copied, or refused, and nothing left behind."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from indexed_writer import IndexedWriter
from nemoflow import manifest, stages
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.indexed import HEADER, MAGIC, IndexedReader

VOCABULARY = 50
LENGTHS = [3, 1, 4]  # tokens of each document of a shard


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest.write("tokenizer.json", {"stage": "tokenizer"}, vocabulary=VOCABULARY)


def shard(prefix, ids=None, dtype="int32"):
    """Write a pair of 3 documents."""
    ids = np.arange(sum(LENGTHS)) if ids is None else np.array(ids)
    with IndexedWriter(prefix, dtype) as writer:
        writer.add_many(ids, np.array(LENGTHS))


def take(path, dtype="int32"):
    """Import a path as the corpus `theirs`; its manifest."""
    identity = {"stage": "corpus", "version": 1, "corpus": "theirs", "dtype": dtype, "import": path}
    write_json("spec.json", {"stage": "corpus", "run": None, "identity": identity, "options": {}})
    stages.corpus("spec.json", [], "tokenizer.json", "tokens/theirs.json")
    return manifest.read("tokens/theirs.json")


def refused(path, **more):
    """The message of an import that fails, and leaves nothing behind."""
    with pytest.raises(UserError) as error:
        take(path, **more)
    left = [file.name for file in Path("tokens").rglob("*") if not file.name.endswith(".lock")]
    assert left == []
    return str(error.value)


def test_a_folder_becomes_a_product():
    for name in ("a/shard_000000", "a/shard_000001", "b/corpus_valid_text", "b/test/part.v1"):
        shard(f"given/{name}")
    Path("given/a/.shard_9.bin.tmp").touch()
    made = take("given")
    assert [(s["split"], s["from"], s["prefix"]) for s in made["shards"]] == [
        ("train", "a/shard_000000", "tokens/theirs/imported/train_00000"),
        ("train", "a/shard_000001", "tokens/theirs/imported/train_00001"),
        ("valid", "b/corpus_valid_text", "tokens/theirs/imported/valid_00000"),
        ("test", "b/test/part.v1", "tokens/theirs/imported/test_00000"),
    ]
    assert made["rows"] == {"in": 12, "kept": 12, "dropped": {}}
    told = {key: made["lengths"][key] for key in ("shortest", "longest", "mean", "p50")}
    assert told == {"shortest": 1, "longest": 4, "mean": 2.7, "p50": 3}
    assert len(made["files"]) == 8
    reader = IndexedReader(made["shards"][3]["prefix"])
    assert reader.tokens.tolist() == list(range(8)) and made["shards"][3]["tokens"] == 8
    assert str(Path.cwd()) not in json.dumps(made)


def blend(**lists):
    write_json("given/blend.json", {"train": [], "valid": [], "test": []} | lists)
    return "given/blend.json"


def test_a_blend_keeps_its_weights():
    for name in ("a", "b", "c"):
        shard(f"given/{name}")
    path = blend(train=["0.7", "given/a", "0.3", "b"], valid=["1", str(Path("given/c").resolve())])
    made = take(path)
    told = [(s["split"], s["from"], s["weight"]) for s in made["shards"]]
    assert told == [("train", "a", 0.7), ("train", "b", 0.3), ("valid", "c", 1.0)]
    assert str(Path.cwd()) not in json.dumps(made)


def test_a_document_may_be_several_sequences():
    shard("given/a")
    raw = Path("given/a.idx").read_bytes()
    several = HEADER.pack(MAGIC, 1, 4, 3, 3) + raw[HEADER.size : HEADER.size + 36]
    Path("given/a.idx").write_bytes(several + struct.pack("<3q", 0, 2, 3))
    (made,) = take("given")["shards"]
    assert (made["sequences"], made["documents"]) == (3, 2)


def test_ids_have_the_type_that_the_tokenizer_file_says():
    shard("given/a", dtype="uint16")
    assert "its ids are uint16, the tokenizer's file says dtype: int32" in refused("given")
    assert take("given", dtype="uint16")["shards"][0]["tokens"] == 8


def test_a_broken_shard_among_good_ones_is_named():
    for name in ("a", "b", "c"):
        shard(f"given/{name}")
    Path("given/b.bin").write_bytes(struct.pack("<8i", *range(7), VOCABULARY))
    assert "given/b.bin: id 50 at position 7" in refused("given")
    shard("given/b")
    assert len(take("given")["shards"]) == 3


def test_a_file_that_changes_meanwhile_is_refused(monkeypatch):
    shard("given/a")

    def change(source, target):
        Path(target).write_bytes(source.read_bytes())
        source.touch()
        yield 1

    monkeypatch.setattr("nemoflow.imports.copied", change)
    assert "a.bin: changed while it was imported; try again" in refused("given")
