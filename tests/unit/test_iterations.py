"""Megatron-Bridge's folder after its process was killed: the newest whole checkpoint is found."""

import shutil

import pytest
import torch

import small_models
from nemoflow import checkpoint, iterations

MOMENTS = {  # of save_checkpoint in Megatron-Bridge, in its order: what is not there yet
    "begun": (".metadata", "metadata.json", "train_state.pt", "run_config.yaml"),
    "shards": ("train_state.pt", "run_config.yaml"),
    "tracked": ("run_config.yaml",),
}


def save(folder, step):
    """A whole checkpoint of Megatron-Bridge's, and its two tracker files."""
    made = small_models.megatron(folder.with_name("made"))
    (made / "iter_0000100").rename(folder / f"iter_{step:07d}")
    shutil.rmtree(made)
    torch.save({"step": torch.tensor(step)}, folder / f"iter_{step:07d}" / "train_state.pt")
    iterations.track(folder, folder / f"iter_{step:07d}")


@pytest.fixture
def folder(tmp_path):
    """A folder with the checkpoints of steps 10 and 20."""
    (tmp_path / "megatron").mkdir()
    for step in (10, 20):
        save(tmp_path / "megatron", step)
    return tmp_path / "megatron"


def tracked(folder):
    """The step by both tracker files."""
    state = torch.load(folder / "latest_train_state.pt")
    return int((folder / "latest_checkpointed_iteration.txt").read_text()), int(state["step"])


def test_what_is_whole_is_left_as_it_is(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert iterations.mend(folder.parent) == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_torn_one_gives_way_to_the_one_before_and_it_is_said(folder, moment):
    save(folder, 30)
    for name in MOMENTS[moment]:
        (folder / "iter_0000030" / name).unlink()
    assert checkpoint.newest(folder.parent).name == "iter_0000020"
    (said,) = iterations.mend(folder.parent)
    assert "iter_0000030 was being written when its job ended" in said
    assert tracked(folder) == (20, 20) and not (folder / "iter_0000030").exists()


@pytest.mark.parametrize("name", ["latest_train_state.pt", "latest_checkpointed_iteration.txt"])
def test_a_torn_tracker_is_written_again(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    assert iterations.mend(folder.parent) == []
    assert tracked(folder) == (20, 20)


def test_a_piece_that_is_cut_short_is_found(folder):
    piece = next((folder / "iter_0000020").glob("*.distcp"))
    piece.write_bytes(piece.read_bytes()[:-100])
    (said,) = iterations.mend(folder.parent)
    assert "cut short" in said and tracked(folder) == (10, 10)


def test_without_any_whole_one_megatron_finds_none(folder):
    for step in (10, 20):
        (folder / f"iter_{step:07d}" / "run_config.yaml").unlink()
    assert len(iterations.mend(folder.parent)) == 2
    assert list(folder.iterdir()) == []


def test_what_was_being_left_as_the_result_comes_back(folder):
    half = folder.parent / ".step_0000020.tmp"
    half.mkdir()
    (folder / "iter_0000020").rename(half / "iter_0000020")
    assert iterations.mend(folder.parent) == [] and tracked(folder) == (20, 20)
