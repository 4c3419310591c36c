"""Files as a revision has them are those that were committed, wherever the repository begins."""

import os
from pathlib import Path

import pytest

from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.revision import Revision, WorkingTree, resolved
from repository import commit_all, git


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of its own; the results of two runs are in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for run in ("a", "b"):
        write_json(f"results/{run}/eval.json", {"run": run})
        write_json(f"provenance/builds/results/{run}/eval.json.json", {"output": run})
        write_json(f"provenance/builds/results/{run}/sft/curve.csv.json", {"output": run})
    write_json("config.json", {})


def told(tree):
    return {
        "runs": tree.runs(),
        "products": tree.products(),
        "json": tree.json("results/a/eval.json"),
        "exists": [tree.exists(path) for path in ("results/a/eval.json", "results/c/eval.json")],
        "absent": (tree.content("results/c/eval.json"), tree.json("results/c/eval.json")),
        "bytes": tree.content("results/b/eval.json"),
    }


def test_a_revision_tells_what_the_working_tree_told_when_it_was_committed():
    before = told(WorkingTree())
    assert before["runs"] == ["a", "b"]
    assert before["products"] == ["results/a/eval.json", "results/b/eval.json"]
    commit_all()
    write_json("results/a/eval.json", {"run": "other"})
    os.unlink("results/b/eval.json")
    assert told(Revision("HEAD")) == before != told(WorkingTree())
    assert Revision("main").content("config.json") is None  # results and provenance alone


def test_a_checkout_may_lie_below_the_root_of_its_repository(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    for name in ("results", "provenance"):
        Path(name).rename(f"sub/{name}")
    commit_all()
    monkeypatch.chdir(tmp_path / "sub")
    assert told(Revision("HEAD")) == told(WorkingTree())


def test_every_way_to_name_a_commit_will_do():
    commit = commit_all()
    git("tag", "v1")
    commit_all("second")
    for name in (commit, commit[:9], "HEAD~1", "v1", "main^"):
        assert Revision(name).commit == commit


def test_unknown_revisions_are_told_with_the_nearest():
    assert resolved("HEAD") is None  # no repository
    with pytest.raises(UserError, match="HEAD: no revision can be read here: .*not a git repos"):
        Revision("HEAD")
    commit_all()
    with pytest.raises(UserError, match=r"mian: git knows no such revision \(did you mean main\?"):
        Revision("mian")
    for name in ("--all", "HEAD:results", "HEAD~7", ""):
        with pytest.raises(UserError, match="git knows no such revision"):
            Revision(name)


def test_git_may_be_absent(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git is not installed"):
        Revision("HEAD")


@pytest.mark.parametrize("text", ["<<<<<<< ours", "[1]", "\xff"])
def test_a_broken_file_is_named(text):
    Path("results/a/eval.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="results/a/eval.json in the working tree: no JSON mapping"):
        WorkingTree().json("results/a/eval.json")
