"""Which files of a listing are a source's: subsets, splits, and every corpus of the recipes."""

from pathlib import Path

import pytest
import yaml

from nemoflow import hub_files
from nemoflow.errors import UserError
from nemoflow.source_file import SourceFile

ROOT = Path(__file__).parents[2]
COMMIT = "c" * 40
# How published data sets lie, where it is not a folder for each subset.
LAYOUTS = {
    "HuggingFaceFW/finepdfs": "data/{subset}/train/000_{n:05d}.parquet",
    "nvidia/Nemotron-Pretraining-Long-Context-v1": "data/train-{n:05d}-of-00002.parquet",
}


@pytest.fixture
def listing(monkeypatch):
    """Sets what the repository holds; downloads are allowed."""
    files: list[SourceFile] = []
    monkeypatch.setattr("nemoflow.hub_data.list_repository", lambda name, commit: files)
    monkeypatch.setattr("nemoflow.hub_data.check_access", lambda name, commit, path: None)

    def hold(*paths):
        files[:] = [SourceFile(path, 10, f"sha256:{path}") for path in sorted(paths)]

    return hold


def found(**source):
    return [f.path for f in hub_files.list_hub({"hub": "o/n", "revision": COMMIT, **source})]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"subset": "chat"}, ["chat-1.jsonl", "chat.jsonl.zst", "chat/a.json", "chat_2.parquet",
                              "x/chat/b.json.gz", "x/chat/train-0.parquet"]),
        ({"subset": "chat", "split": "train"}, ["x/chat/train-0.parquet"]),
        ({"split": "train"}, ["train.jsonl", "train/a.parquet", "x/chat/train-0.parquet"]),
        ({"subset": "v1.part_00"}, ["data/v1.part_00.jsonl"]),
        ({"subset": "3"}, ["3/part_0.parquet"]),
    ],
)  # fmt: skip
def test_subset_and_split(listing, asked, wanted):
    listing(
        *("chat/a.json", "x/chat/b.json.gz", "chat-1.jsonl", "chat_2.parquet", "chat.jsonl.zst"),
        *("chatty/a.jsonl", "chats.jsonl", "my-chat.jsonl", "x/chat/train-0.parquet"),
        *(
            "train.jsonl",
            "train/a.parquet",
            "training.jsonl",
            "restrain-1.jsonl",
            "constrain/a.json",
        ),
        *("data/v1.part_00.jsonl", "data/v1.part_01.jsonl", "3/part_0.parquet", "4plus/3a.jsonl"),
        *("README.md", "dataset_infos.json"),
    )
    assert found(**asked) == wanted


def test_all_of_a_repository_is_told_what_it_leaves_out(listing, capsys):
    listing("a.jsonl", "b.parquet", "c.csv", "README.md", "dataset_infos.json", "x/state.json")
    assert found() == ["a.jsonl", "b.parquet"]
    assert "left out, not .jsonl, " in (told := capsys.readouterr().err)
    assert told.rstrip().endswith(": c.csv")


def test_what_there_is_instead_is_told(listing):
    listing("High-Quality/a.parquet", "Low-Quality/a.parquet", "README.md")
    with pytest.raises(UserError, match="no file is of subset High split train; there are folders"
                       " High-Quality, Low-Quality"):  # fmt: skip
        found(subset="High", split="train")
    listing(*(f"part{n}.jsonl" for n in range(30)))
    with pytest.raises(UserError, match="files part0.jsonl, .* and 10 more"):
        found(subset="x")
    listing("README.md")
    with pytest.raises(UserError, match=r"it has no \.jsonl"):
        found()


CORPORA = {
    path.stem: source
    for path in (ROOT / "config/corpora").glob("*.yaml")
    if "hub" in (source := yaml.safe_load(path.read_text())["source"])
}


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_every_corpus_of_the_recipes_finds_its_own_files_alone(listing, name):
    source = CORPORA[name]
    layout = LAYOUTS.get(source["hub"], "{subset}/part_{n:06d}.parquet")
    beside = {other.get("subset") for other in CORPORA.values() if other["hub"] == source["hub"]}
    subsets = {*beside, "Other"} if "subset" in source else {""}
    listing(*(layout.format(subset=subset, n=n) for subset in subsets for n in range(2)))
    asked = {key: source[key] for key in ("subset", "split") if key in source}
    assert found(**asked) == [layout.format(subset=source.get("subset"), n=n) for n in range(2)]
