"""What nothing refers to goes if it lies elsewhere too, and never as the only copy."""

import os
import shutil
from pathlib import Path

import pytest

from nemoflow import disk, locks, manifest, storage
from nemoflow.files import write_json, write_whole
from small_checkout import (
    GONE,
    KEPT,
    clean,
    commit,
    configure,
    files,
    forget,
    listed,
    make,
    work_in,
)


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A checkout to work in."""
    work_in(tmp_path, monkeypatch)


@pytest.mark.parametrize("where", ["nowhere", "sealed", "pushed"])
def test_bytes_of_a_deleted_run_go_if_they_lie_elsewhere(where):
    make(KEPT, pushed=True)
    content = make(GONE, sealed=where == "sealed", pushed=where == "pushed")
    commit()
    forget(GONE)
    commit()
    folder, before = "results/gone/sft/checkpoint", files()
    told = listed()
    assert told[folder][0] == (where != "nowhere")
    if where == "nowhere":
        assert told[folder][1].endswith("the only copy")
        assert "nothing to remove" in clean() and files() == before
    if where == "sealed":
        assert told[".dvc/cache: 3 objects"] == (False, "the copy of what is listed to go")
        assert "2 of 2 things removed" in clean()
        assert not Path(folder).exists() and Path(KEPT).with_suffix("").is_dir()
        assert all(storage.Storage().cached(md5).exists() for md5 in storage.objects(content))
        assert listed() == {".dvc/cache: 3 objects": (False, "the only copy")}
    if where == "pushed":
        assert told[".dvc/cache: 3 objects"] == (True, "also on the remote")
        clean()
        assert {path for path in before - files() if "kept" in path} == set()
        assert listed() == {} and not Path(folder).exists()
        assert storage.Storage().on_remote(storage.objects(content)) == set(
            storage.objects(content)
        )


def test_a_folder_of_another_build_is_told_from_one_that_lacks_files():
    make(KEPT, sealed=True)
    (Path(KEPT).with_suffix("") / "model.bin").unlink()
    assert listed() == {}
    write_whole(Path(KEPT).with_suffix("") / "model.bin", "another build")
    assert listed() == {
        "results/kept/sft/checkpoint": (False, "no manifest describes it; the only copy")
    }


def test_a_part_of_a_known_build_lies_elsewhere_if_its_files_do():
    make(KEPT, pushed=True)
    shutil.copytree(manifest.payload(KEPT), manifest.payload(GONE))
    (manifest.payload(GONE) / "model.bin").unlink()
    told = listed()["results/gone/sft/checkpoint"]
    assert told == (True, "no manifest describes it; also on the remote")
    (manifest.payload(GONE) / "deep").rename(manifest.payload(GONE) / "moved")
    assert not listed()["results/gone/sft/checkpoint"][0]


def test_what_a_killed_job_left_goes_unless_somebody_works():
    make(KEPT)
    for name in (".checkpoint.new", ".checkpoint.former", "progress/.step_0000003.tmp"):
        write_whole(f"results/kept/sft/{name}/model.bin", "half")
    write_whole("results/gone/sft/.checkpoint.former/model.bin", "perhaps the only one")
    with locks.product(KEPT):
        assert set(listed()) == {"results/gone/sft/.checkpoint.former"}
    assert listed() == {
        "results/kept/sft/.checkpoint.new": (True, "left half-made by a killed job"),
        "results/kept/sft/.checkpoint.former": (True, "a former build; the product is whole"),
        "results/kept/sft/progress/.step_0000003.tmp": (True, "left half-made by a killed job"),
        "results/gone/sft/.checkpoint.former": (False, "perhaps the only build"),
    }
    assert "3 of 3 things removed" in clean()
    assert set(listed()) == {"results/gone/sft/.checkpoint.former"}
    assert manifest.payload(KEPT).is_dir()


def test_what_no_lock_tells_of_must_have_been_quiet():
    make(KEPT, sealed=True)
    folder = next(path for path in Path(".dvc/cache/files/md5").iterdir())
    paths = [Path("results/kept/.eval.json.7.tmp"), folder / ".Ab3dEf6h1jKlMn0pQ.tmp"]
    paths.append(Path("results/kept/sft/.checkpoint.new"))
    write_whole(paths[0], "half")
    write_whole(paths[1], "half")
    write_whole(paths[2] / "model.bin", "half")
    locks.lock_of(KEPT).write_text("process 7 on another-host: sft.py")
    assert [removable for removable, _ in listed().values()] == [False, False, False]
    for path in (*paths[:2], paths[2] / "model.bin"):
        os.utime(path, (1, 1))
    assert [removable for removable, _ in listed().values()] == [True, True, True]
    clean()
    assert listed() == {} and not any(path.exists() for path in paths)


def test_progress_goes_when_its_training_has_ended_and_its_product_is_gone():
    for run in ("ended", "unfinished", "unrecorded", "kept"):
        write_whole(f"results/{run}/sft/progress/step_0000001/model.bin", run)
        if run != "unfinished":
            write_json(f"results/{run}/sft/progress/final.json", {"checkpoint": "step_0000002"})
            write_json(f"results/{run}/sft/progress/published.json", {"md5": "x"})
    make(KEPT)
    write_whole("results/unrecorded/sft/checkpoint/model.bin", "finished, its manifest not written")
    told = listed()
    assert {name for name, (removable, _) in told.items() if removable} == {
        "results/ended/sft/progress"
    }
    assert "the same command goes on" in told["results/unfinished/sft/progress"][1]
    assert not told["results/unrecorded/sft/checkpoint"][0]
    assert "results/kept/sft/progress" not in told


def test_progress_goes_after_the_bytes_that_its_training_made(monkeypatch):
    make(GONE, pushed=True)
    commit()
    write_json("results/gone/sft/progress/final.json", {"checkpoint": "step_0000002"})
    write_json("results/gone/sft/progress/published.json", {"md5": "x" * 9999})
    assert listed() == {}
    forget(GONE)
    commit()
    with monkeypatch.context() as patched:
        patched.setattr(disk, "read_payload", lambda folder: "other bytes")
        said = clean()
    assert "checkpoint: bytes have changed" in said and "sft/checkpoint is still there" in said
    clean()
    assert listed() == {} and not list(Path("results").rglob("*.json"))


def test_stamps_and_copies_of_what_is_gone_go_with_it():
    make(GONE, pushed=True)
    shutil.copy(GONE, manifest.last(GONE))
    commit()
    forget(GONE)
    commit()
    assert "results/gone/sft: stamps, and copies of manifests" in listed()
    clean()
    assert [str(path) for path in Path("results").rglob("*") if path.is_file()] == [
        "results/gone/sft/.checkpoint.lock"
    ]


def test_parts_of_a_corpus_that_is_not_joined_yet_are_its_own():
    part = "results/data/tokens/tok/web.parts/0000.json"
    make(part)
    write_whole("results/data/tokens/tok/web/0001/receipt_00000.json", "half of the next part")
    assert listed() == {}
    with locks.product(part):
        Path(part).unlink()
        assert listed() == {}
    assert not listed()["results/data/tokens/tok/web"][0]


def test_an_object_of_the_cache_goes_when_the_workspace_has_it():
    make(GONE, sealed=True)
    forget(GONE)
    write_whole("results/gone/sft/checkpoint/more.bin", "nowhere else")
    told = listed()
    assert told["results/gone/sft/checkpoint"] == (
        False,
        "no manifest describes it; the only copy",
    )
    assert told[".dvc/cache: 2 objects"] == (True, "also in the workspace")
    assert told[".dvc/cache: 1 objects"] == (False, "the only copy")  # the list of files
    clean()
    assert set(listed()) == {"results/gone/sft/checkpoint", ".dvc/cache: 1 objects"}


def test_in_a_shared_cache_nothing_is_anybodys_to_remove(tmp_path):
    configure(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    make(GONE, sealed=True)
    forget(GONE)
    shutil.rmtree("results")
    assert listed() == {
        "../shared: 3 objects": (False, "the cache is shared: others may refer to them")
    }
