"""Whatever git has a name for is referred to, and what stands in the working tree."""

import shutil
from pathlib import Path

import pytest

from nemoflow import manifest, references, storage
from nemoflow.files import read_json, sha256_of, write_json, write_whole
from small_checkout import GONE, KEPT, commit, forget, git, listed, make, work_in


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A checkout to work in."""
    work_in(tmp_path, monkeypatch)


def test_what_any_ref_the_index_or_the_working_tree_names_is_referred_to():
    runs = ["here", "index", "head", "branch", "tag", "far", "detached"]
    contents = {run: make(f"results/{run}/sft/checkpoint.json", sealed=True) for run in runs}
    for run in ("branch", "tag", "far", "detached"):
        git("add", "--force", f"results/{run}/sft/checkpoint.json")
        git("commit", "--quiet", "--message=x")
        if run == "tag":
            git("tag", "--annotate", "--message=x", "v1")
        elif run == "detached":
            git("worktree", "add", "--quiet", "--detach", "../worktree")
        else:
            git("update-ref", f"refs/{'remotes/origin/x' if run == 'far' else 'heads/x'}", "HEAD")
        git("rm", "--quiet", "--cached", f"results/{run}/sft/checkpoint.json")
    git("add", "--force", "results/head/sft/checkpoint.json")
    git("commit", "--quiet", "--message=x")
    git("rm", "--quiet", "--cached", "results/head/sft/checkpoint.json")
    git("add", "results/index/sft/checkpoint.json")
    for run in runs[1:]:
        forget(f"results/{run}/sft/checkpoint.json")
    assert listed() == {}
    git("branch", "-D", "x")
    assert set(listed()) == {
        "results/branch/sft/checkpoint",
        "results/branch/sft: stamps, and copies of manifests",
        ".dvc/cache: 3 objects",
    }
    assert not references.committed().hold(contents["branch"]["md5"])
    assert references.committed().hold(contents["tag"]["md5"])


def test_a_manifest_that_will_be_put_back_describes_its_bytes():
    make(GONE)
    shutil.copy(GONE, manifest.last(GONE))
    record = Path("provenance/records") / f"{GONE}.json"
    write_json(record, {"output": GONE, "sha256": sha256_of(GONE), "record": {}})
    Path(GONE).unlink()
    assert listed() == {}
    record.unlink()
    assert set(listed()) == {"results/gone/sft/checkpoint"}


def test_a_list_that_only_a_pointer_names_is_followed():
    content = make(KEPT, sealed=True)
    Path(KEPT).unlink()
    assert not [name for name in listed() if "objects" in name]
    store = storage.Storage()
    (other,) = [f["md5"] for f in content["files"] if f["path"] == "model.bin"]
    store.cached(content["md5"]).unlink()
    shutil.rmtree(Path(KEPT).with_suffix(""))
    told = listed()[".dvc/cache: 2 objects"]
    assert told == (
        False,
        "results/kept/sft/checkpoint.dvc may refer to them: its list of files is not here",
    )
    assert store.cached(other).exists()


def test_a_read_of_many_refs_reads_each_file_once():
    made = make(KEPT)
    for number in range(9):
        write_whole(f"results/kept/note{number}.json", "{}")
        commit()
        git("branch", f"b{number}")
    assert len(references.trees()) == 9
    found = references.committed()
    assert found.builds[KEPT] == {made["md5"]: {f["path"]: f["md5"] for f in made["files"]}}
    assert read_json(KEPT)["md5"] in found.objects
