"""Which shards a path names, and what is said where it names none, or a broken blend.json."""

from pathlib import Path

import pytest

from nemoflow import manifest, specs
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.import_paths import check_early, find


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shard(prefix):
    """The two files of a shard; nobody reads them here."""
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    for end in ("bin", "idx"):
        Path(f"{prefix}.{end}").touch()


def refused(path):
    with pytest.raises(UserError) as error:
        find(path)
    return str(error.value)


def named(path):
    """{prefix: split} of what is found at a path."""
    return {str(found.prefix): found.split for found in find(path)}


@pytest.mark.parametrize(
    ("path", "prefixes"),
    [
        ("given/a", ["given/a"]),
        ("given/a.bin", ["given/a"]),
        ("given/a.idx", ["given/a"]),
        ("given/*", ["given/a", "given/b.v2", "given/c/d"]),
        ("given/b*.bin", ["given/b.v2"]),
        ("given/**/d.*", ["given/c/d"]),
        ("giv*/c", ["given/c/d"]),
    ],
)
def test_prefixes_and_globs(path, prefixes):
    for name in ("a", "b.v2", "c/d"):
        shard(f"given/{name}")
    assert list(named(path)) == prefixes


def test_the_name_tells_the_split():
    for name in ("x_train", "x-validation", "valid/y", "x.test.0", "latest", "training"):
        shard(f"given/{name}")
    assert named("given") == {
        "given/latest": "train", "given/training": "train", "given/valid/y": "valid",
        "given/x-validation": "valid", "given/x.test.0": "test", "given/x_train": "train",
    }  # fmt: skip


def blend(**lists):
    write_json("given/blend.json", {"train": [], "valid": [], "test": []} | lists)
    return "given/blend.json"


def test_a_list_may_be_a_line_of_text():
    for name in ("a", "b"):
        shard(f"given/{name}")
    assert [s.weight for s in find(blend(train="0.5 given/a 2 given/b"))] == [0.5, 2.0]


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"train": ["1", "given/a", "2"]}, "train has 3 entries, an odd number"),
        ({"train": ["much", "given/a"]}, "train: 'much' stands where a weight belongs"),
        ({"train": ["-1", "given/a"]}, "train: weight -1 is not a finite number >= 0"),
        ({"train": ["nan", "given/a"]}, "train: weight nan is not"),
        ({"train": ["1", "given/z"]}, "train lists given/z, which does not exist: there is no"),
        ({"valid": ["1", "given/a"]}, "train lists nothing with a weight above 0"),
        ({"train": ["0", "given/a"]}, "train lists nothing with a weight above 0"),
        ({"train": [["1", "given/a"]]}, "train is not a list of weights and prefixes"),
        ({"train": {"given/a": 1}}, "train is not a list of weights and prefixes"),
        ({"validation": []}, "not a blend.json: that has train, valid, test, and nothing else"),
        ({"train": ["1", "given/a", "1", "given/a"]}, "given/a stands twice, in train;"),
        ({"train": ["1", "given/a"], "test": ["1", "a"]}, "stands twice, in train and test"),
        ({"train": ["1", "given/half"]}, "given/half.idx is missing: half.bin is there without it"),
    ],
)
def test_a_broken_blend_is_refused(lists, said):
    shard("given/a")
    Path("given/half.bin").touch()
    assert said in (told := refused(blend(**lists)))
    assert told.startswith("given/")


def test_a_file_that_is_no_blend_is_refused():
    assert refused("no.json") == "import: no.json: there is no such file"
    Path("torn.json").write_text('{"train": [')
    assert refused("torn.json").startswith("torn.json: not readable as JSON: ")
    Path("list.json").write_text("[]")
    assert "not a blend.json" in refused("list.json")


def test_where_nothing_lies_is_said():
    Path("empty").mkdir()
    Path("text.txt").touch()
    assert refused("empty").endswith("no .bin and .idx files lie in this folder, or below it")
    assert refused("gone").endswith("there is no such folder, and no gone.bin")
    assert refused("go*").endswith("no .bin or .idx file matches")
    assert "a file; name a prefix" in refused("text.txt")
    shard("held/out_test")
    assert "all 1 shards are held out, the first is held/out_test (test)" in refused("held")


def test_a_missing_path_is_said_before_any_job(config_folder):
    (config_folder / "corpora/theirs.yaml").write_text("about: x\nimport: nowhere/x\n")
    config = Config(config_folder)
    product = Path("tokens/theirs.json")
    with pytest.raises(UserError, match=r"theirs\.yaml:2: import: nowhere/x: there is no such"):
        check_early(config, "micro", "theirs", product)
    spec = specs.of(config, "corpus", {"tokenizer": "micro", "corpus": "theirs"})
    manifest.write(product, spec.identity)
    check_early(config, "micro", "theirs", product)  # built: nothing is read again
