"""What takes room is counted once; what is removed is still as it was listed."""

import os
import shutil
from pathlib import Path

import pytest

from nemoflow import disk, locks, manifest, storage
from nemoflow.errors import UserError
from nemoflow.files import write_whole
from nemoflow.survey import Survey
from nemoflow.unreferenced import things
from small_checkout import (
    GONE,
    KEPT,
    clean,
    commit,
    configure,
    files,
    forget,
    git,
    listed,
    make,
    work_in,
)


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A checkout to work in."""
    work_in(tmp_path, monkeypatch)


def test_what_each_takes_is_what_lies_there(tmp_path):
    configure("[cache]\n    type = hardlink\n")
    make(KEPT, sealed=True)
    make("results/data/packed/small.json")
    write_whole("results/kept/sft/progress/step_0000001/model.bin", "x" * 5000)
    write_whole("results/kept/logs/sft.log", "x" * 70)
    write_whole("results/README.md", "x")
    os.link("results/kept/logs/sft.log", "results/kept/logs/again.log")
    rows = disk.usage(Survey())
    assert set(rows) == {"kept", "data/packed", "of none"}
    listed = [path for path in Path("results").rglob("*") if path.is_file()]
    sizes = {path.stat().st_ino: path.stat().st_size for path in listed}
    assert sum(row[0] + row[3] for row in rows.values()) == sum(sizes.values())
    sealed = manifest.read(KEPT)["size"]
    assert rows["kept"][1:] == [sealed, 0, 5000] and rows["data/packed"][1:] == [0, 0, 0]
    linked = [path for path in Path(".dvc/cache").rglob("*") if path.stat().st_nlink == 2]
    assert linked and "hard links to results/" in "\n".join(disk.disk(False, False))
    both = {p.stat().st_ino: p.stat().st_size for p in Path(".dvc/cache").rglob("*") if p.is_file()}
    told = next(line for line in disk.cache(Survey()) if line.endswith("cache on disk"))
    assert told.split()[0] == disk.in_bytes(sum((sizes | both).values()))


def answering(monkeypatch, answer):
    """Somebody at a terminal who does something before saying yes."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked = []

    def say(question):
        asked.append(question)
        answer()
        return "y"

    monkeypatch.setattr("builtins.input", say)
    return asked


def test_it_asks_first_and_refuses_where_nobody_can_answer(monkeypatch):
    make(GONE, pushed=True)
    forget(GONE)
    before = files()
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(UserError, match="say --yes"):
        clean(yes=False)
    asked = answering(monkeypatch, lambda: None)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "")
    assert clean(yes=False).endswith("nothing removed")
    assert files() - before <= {str(manifest.stamp(GONE))}
    assert asked[0].startswith("remove these 3 things, ") and asked[0].endswith("? [y/N] ")


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda: write_whole("results/gone/sft/checkpoint/new.bin", "x"), "it has changed"),
        (lambda: git("tag", "v1"), "branches, tags or the index have changed"),
        (lambda: shutil.rmtree("../far"), "the copy on the remote is gone"),
        (lambda: make(GONE), "it has changed"),
    ],
)
def test_what_changes_before_it_is_removed_stays(monkeypatch, change, told):
    commit()
    make(GONE, pushed=True)
    forget(GONE)
    answering(monkeypatch, change)
    said = clean(yes=False)
    assert f"skipped  results/gone/sft/checkpoint: {told}" in said
    assert Path("results/gone/sft/checkpoint/model.bin").exists()


def test_what_somebody_begins_to_work_on_stays(monkeypatch):
    make(GONE, pushed=True)
    forget(GONE)
    with locks.product(KEPT):
        pass
    held = locks.product(GONE)
    answering(monkeypatch, held.__enter__)
    assert "checkpoint: somebody works on it now" in clean(yes=False)
    held.__exit__(None, None, None)
    assert Path("results/gone/sft/checkpoint/model.bin").exists()


def test_a_damaged_copy_in_the_cache_is_no_copy(monkeypatch):
    content = make(GONE, sealed=True)
    forget(GONE)
    damaged = storage.Storage().cached(content["files"][0]["md5"])

    def damage():
        damaged.chmod(0o644)
        damaged.write_bytes(b"x" * damaged.stat().st_size)

    answering(monkeypatch, damage)
    assert "checkpoint: the copy in the cache is damaged" in clean(yes=False)
    assert Path("results/gone/sft/checkpoint/model.bin").exists()


def test_only_what_is_freed_is_promised():
    configure("[cache]\n    type = hardlink\n")
    make(GONE, sealed=True)
    forget(GONE)
    found = [thing for thing in things(Survey()) if thing.name.endswith("checkpoint")]
    assert found[0].removable and found[0].size and disk.freed(found) == 0


def test_what_could_be_pulled_again_is_listed_and_stays():
    make(KEPT, pushed=True)
    make("results/kept/export/sft.json", sealed=True)
    said = clean()
    assert "could be pulled again" in said and "results/kept/sft/checkpoint\n" in said
    assert "results/kept/export/sft\n" not in said and said.endswith("nothing to remove")


def test_without_a_remote_nothing_counts_as_being_there():
    make(GONE, pushed=True)
    configure("")
    forget(GONE)
    told = listed()
    assert told["results/gone/sft/checkpoint"][1].endswith("also in the cache")
    said = "\n".join(disk.disk(clean=False, yes=False))
    assert "nothing counts as being on a remote: DVC has no default remote here" in said


def test_a_folder_without_git_is_refused():
    shutil.rmtree(".git")
    with pytest.raises(UserError, match="git"):
        clean()
