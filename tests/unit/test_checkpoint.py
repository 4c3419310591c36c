"""Checkpoints are complete or absent; publishing can be repeated after a kill."""

import pytest

from nemoflow import checkpoint
from nemoflow.errors import UserError


def make(progress, step):
    with checkpoint.writing(progress, step) as folder:
        (folder / "model.safetensors").write_text(f"weights of {step}")


def test_newest_by_step(tmp_path):
    assert checkpoint.newest(tmp_path / "absent") is None
    for step in (9, 10, 2):
        make(tmp_path, step)
    assert checkpoint.newest(tmp_path).name == "step_0000010"
    assert checkpoint.step_of(checkpoint.newest(tmp_path)) == 10


def test_a_failed_write_leaves_no_checkpoint(tmp_path):
    make(tmp_path, 1)
    with pytest.raises(RuntimeError), checkpoint.writing(tmp_path, 2) as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step_0000001"]


def test_prune_keeps_the_newest_and_clears_leftovers(tmp_path):
    for step in range(1, 5):
        make(tmp_path, step)
    (tmp_path / ".step_0000005.tmp").mkdir()
    checkpoint.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_0000003", "step_0000004"]


def test_publish_replaces_and_may_be_repeated(tmp_path):
    progress, target = tmp_path / "progress", tmp_path / "checkpoint"
    for step in (1, 2):
        make(progress, step)
        checkpoint.finish(progress, step)
        checkpoint.publish(progress, target)
        checkpoint.publish(progress, target)
        assert (target / "model.safetensors").read_text() == f"weights of {step}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "progress"]


def test_publish_after_a_kill_between_its_renames(tmp_path):
    progress, target = tmp_path / "progress", tmp_path / "checkpoint"
    make(progress, 3)
    checkpoint.finish(progress, 3)
    (tmp_path / ".checkpoint.former").mkdir()  # the old one was moved away, then came the kill
    checkpoint.publish(progress, target)
    assert (target / "model.safetensors").exists()
    assert not (tmp_path / ".checkpoint.former").exists()


def test_publish_without_a_finished_job_is_refused(tmp_path):
    make(tmp_path / "progress", 3)
    with pytest.raises(UserError, match="no finished checkpoint"):
        checkpoint.publish(tmp_path / "progress", tmp_path / "checkpoint")
