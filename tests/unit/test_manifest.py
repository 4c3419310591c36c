"""Bytes are believed only when they match; the digest of a folder is DVC's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemoflow import files, manifest
from nemoflow.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def product(tmp_path):
    """The manifest of two files, one below the other."""
    path = tmp_path / "results" / "x.json"
    for name, content in {"model.bin": b"weights", "inner/config.json": b"{}"}.items():
        (tmp_path / "results/x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results/x" / name).write_bytes(content)
    manifest.write(path, {"stage": "sft"}, rows=3)
    return path


@pytest.mark.parametrize(
    ("path", "folder", "stamp", "last"),
    [
        (
            "r/sft/checkpoint.json",
            "r/sft/checkpoint",
            "r/sft/.checkpoint.stat",
            ".checkpoint.json.last",
        ),
        (
            "r/export/rl.rlvr1.json",
            "r/export/rl.rlvr1",
            "r/export/.rl.rlvr1.stat",
            ".rl.rlvr1.json.last",
        ),
        ("t/web.parts/0003.json", "t/web/0003", "t/web.parts/.0003.stat", ".0003.json.last"),
        ("r/curve.csv", "r/curve", "r/.curve.stat", ".curve.csv.last"),
    ],
)
def test_siblings_have_names_that_follow_from_the_manifests(path, folder, stamp, last):
    assert manifest.payload(path) == Path(folder)
    assert manifest.stamp(path) == Path(stamp)
    assert manifest.last(path).name == last


def test_a_manifest_says_what_was_built_and_nothing_else(product, tmp_path):
    content = json.loads(product.read_text())
    assert content.keys() == {
        "format", "spec", "identity", "inputs", "rows", "files", "size", "md5",
    }  # fmt: skip
    assert content["files"] == [
        {"path": "inner/config.json", "size": 2, "md5": "99914b932bd37a50b983c5e7c90ae93b"},
        {"path": "model.bin", "size": 7, "md5": manifest.md5_of(tmp_path / "results/x/model.bin")},
    ]
    assert content["spec"] == files.digest({"stage": "sft"}) and content["size"] == 9
    assert str(tmp_path) not in product.read_text()


def test_equal_builds_have_equal_manifests_wherever_they_lie(product, tmp_path):
    shutil.copytree(tmp_path / "results/x", tmp_path / "elsewhere/x")
    manifest.write(tmp_path / "elsewhere/x.json", {"stage": "sft"}, rows=3)
    assert (tmp_path / "elsewhere/x.json").read_bytes() == product.read_bytes()


def test_a_product_without_bytes_has_a_manifest_without_files(tmp_path):
    given = tmp_path / "given.json"
    given.write_text("1")
    manifest.write(tmp_path / "plan.json", {"stage": "plan"}, [given], parts=[])
    content = manifest.read(tmp_path / "plan.json")
    assert "md5" not in content and "files" not in content
    assert content["inputs"] == {str(given): files.sha256_of(given)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such product; build it first"),
        ("{", "not JSON"),
        ("[]", "not a manifest of nemoflow"),
        ('{"a": 1}', "not a manifest of nemoflow"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content, said):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="x.json: ") as error:
        manifest.read(path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"identity": {"stage": "rl"}}, "its spec is not the digest of its identity"),
        ({"spec": None}, "its spec is not the digest of its identity"),
        ({"files": None}, "its files are not a list of path, size and md5"),
        ({"files": [{"path": "x"}]}, "its files are not a list of path, size and md5"),
        ({"md5": "0.dir"}, "its md5 does not match its file list"),
        ({"size": 1}, "its size is not that of its files"),
    ],
)
def test_a_manifest_edited_by_hand_is_refused(product, edit, said):
    files.write_json(product, {**files.read_json(product), **edit})
    with pytest.raises(UserError, match="edited by hand: ") as error:
        manifest.read(product)
    assert said in str(error.value) and f"git checkout {product}" in str(error.value)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", "a//b", "./a"])
def test_a_file_of_a_product_lies_in_it(product, path):
    """Pulling writes where the manifest says, and removes what is wrong there."""
    content = files.read_json(product)
    content["files"][0]["path"] = path
    content["md5"] = manifest.tree_md5(content["files"])
    assert "its files are not a list" in manifest.fault(content)
    content["files"][0] |= {"path": "x", "md5": "../../x"}
    content["md5"] = manifest.tree_md5(content["files"])
    assert "its files are not a list" in manifest.fault(content)


@pytest.mark.parametrize(
    "text",
    [None, b"", b"outs:", b"outs: []", b"outs: [1]", b"outs: 3", b"[]", b"a: {", b"\xff",
     b"outs: [{md5: 0.dir, path: y}]", b"outs: [{md5: 0.dir}]", b"outs: [{path: x}]"],
)  # fmt: skip
def test_a_pointer_that_does_not_lead_to_the_product_is_none(product, text):
    if text is not None:
        product.with_suffix(".dvc").write_bytes(text)
    assert manifest.pointer_md5(product) is None
    manifest.write_pointer(product, manifest.read(product))
    assert manifest.pointer_md5(product) == manifest.read(product)["md5"]


def test_finished_outputs_are_kept_but_not_those_of_parts(tmp_path):
    whole, part = tmp_path / "x.json", tmp_path / "x.parts" / "0000.json"
    for path in (whole, part):
        files.write_json(path, 1)
    manifest.keep([whole, part])
    assert manifest.last(whole).read_bytes() == whole.read_bytes()
    assert not manifest.last(part).exists()


def run(*command, folder):
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


TREES = {  # every kind of payload, and every kind of name
    "results/data/tokenizers/tiny": ["tokenizer.json", "tokenizer_config.json"],
    "results/data/tokens/tiny/web": [
        "0000/train_00000.bin",
        "0001/train_00000.idx",
        "z",
        "Z",
        "a b",
    ],
    "results/data/packed/tiny": [
        "train/packed_00000.parquet",
        "train.x/y",
        "train-x",
        "ü.bin",
        "𐀀",
    ],
    "results/data/rendered/tiny/chats": ["spool.json"],
    "results/data/prompts/tiny": [".hidden", "train.jsonl", 'quo"te', "back\\slash"],
    "results/tiny/sft/checkpoint": ["model.safetensors", "deep/er/file"],
    "results/tiny/export/rl.rlvr1": ["config.json"],
    "results/tiny/eval/sft/tiny_facts": ["samples.jsonl"],
}


def test_dvc_computes_the_same_digest_and_sees_every_pointer(tmp_path):
    """What DVC itself writes, under this repository's own .gitignore."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    run("git", "init", "--quiet", folder=tmp_path)
    run("dvc", "init", "--quiet", folder=tmp_path)
    for number, (tree, names) in enumerate(TREES.items()):
        for name in names:
            path = tmp_path / tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number} {name}")
        manifest.write(tmp_path / f"{tree}.json", {"stage": "x"})
    run("dvc", "add", *TREES, folder=tmp_path)
    for tree in TREES:
        path = tmp_path / f"{tree}.json"
        assert manifest.pointer_md5(path) == manifest.read(path)["md5"], tree
    listed = run("dvc", "list", ".", "-R", "--dvc-only", folder=tmp_path)
    assert len(listed.splitlines()) == sum(map(len, TREES.values()))
    tracked = run("git", "status", "--short", "-uall", folder=tmp_path).splitlines()
    assert {line[3:] for line in tracked if "results/" in line} == {
        f"{tree}{suffix}" for tree in TREES for suffix in (".json", ".dvc")
    }
