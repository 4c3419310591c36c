"""Checkpoints are complete or absent, and kept by rule; publishing can be repeated after a kill."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow import checkpoint, iterations
from nemoflow.errors import UserError


def make(progress, step):
    with checkpoint.writing(progress, step) as folder:
        (folder / "model.safetensors").write_text(f"weights of {step}")


def iteration(progress, step):
    """A checkpoint of Megatron-Bridge's, as far as its names tell."""
    folder = progress / "megatron" / f"iter_{step:07d}"
    folder.mkdir(parents=True)
    for name in iterations.WRITTEN:
        (folder / name).write_text(name)
    return folder


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
    checkpoint.prune(tmp_path, {"keep": 2})
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


STEPS = st.sets(st.integers(1, 2000), min_size=1, max_size=60)
WINDOW = st.fixed_dictionaries({"iterations": st.integers(1, 900), "every": st.integers(1, 90)})
OPTIONS = st.fixed_dictionaries(
    {"keep": st.integers(1, 5)},
    optional={"milestones": st.none() | st.integers(1, 300), "window": st.none() | WINDOW},
)


@given(STEPS, OPTIONS, st.none() | st.integers(1, 2000))
def test_what_is_kept(found, options, stop):
    stay = checkpoint.kept(found, options, stop)
    newest = sorted(found)[-options["keep"] :]
    assert set(newest) <= stay <= found
    every, window = options.get("milestones"), options.get("window")
    for step in found - set(newest):
        milestone = bool(every) and step % every == 0
        inside = bool(window and stop) and stop - window["iterations"] < step < stop
        assert (step in stay) == (milestone or (inside and step % window["every"] == 0))
    assert checkpoint.kept(stay, options, stop) == stay


@given(STEPS, OPTIONS, st.integers(1, 2000))
def test_pruning_after_every_save_keeps_what_pruning_once_does(found, options, stop):
    held: set[int] = set()
    for step in sorted(found):
        held = checkpoint.kept({*held, step}, options, stop)
    assert held == checkpoint.kept(found, options, stop)


def test_the_window_of_the_report():
    """500B tokens before the end of 25T, a checkpoint every 2,000 iterations (merging)."""
    options = {"keep": 1, "window": {"iterations": 19_868, "every": 2000}}
    stay = checkpoint.kept(range(200, 993_411, 200), options, 993_411)
    assert stay == {*range(974_000, 993_411, 2000), 993_400}


def test_pruning_keeps_milestones_and_window(tmp_path):
    for step in range(1, 13):
        make(tmp_path, step)
        options = {"keep": 1, "milestones": 5, "window": {"iterations": 4, "every": 2}}
        checkpoint.prune(tmp_path, options, 12)
    assert [checkpoint.step_of(path) for path in checkpoint.steps(tmp_path)] == [5, 10, 12]


def test_window_and_milestones_end_up_beside_the_checkpoint(tmp_path):
    progress, options = tmp_path / "progress", {"keep": 1, "milestones": 3}
    options["window"] = {"iterations": 5, "every": 2}
    (tmp_path / "window" / "step_0000099").mkdir(parents=True)  # a former build's
    (tmp_path / "window.json").write_text("{}")
    for step in range(1, 9):
        make(progress, step)
    for _ in range(2):  # killed after the first time
        folders = checkpoint.set_aside(progress, tmp_path / "checkpoint", options, 8)
    assert [folder.name for folder in folders] == ["window", "milestones"]
    assert not (tmp_path / "window.json").exists()
    held = {f.name: sorted(checkpoint.step_of(p) for p in f.iterdir()) for f in folders}
    assert held == {"window": [4, 6], "milestones": [3]}  # 6 is both, and merge needs it
    assert [checkpoint.step_of(path) for path in checkpoint.steps(progress)] == [1, 2, 5, 7, 8]


def test_the_three_layouts(tmp_path):
    make(tmp_path, 3)
    (tmp_path / "nemo_rl" / "step_12").mkdir(parents=True)
    (tmp_path / "nemo_rl" / "tmp_step_14").mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "nemo_rl" / "step_12"
    iteration(tmp_path, 20)
    assert checkpoint.newest(tmp_path) == tmp_path / "megatron" / "iter_0000020"
    (tmp_path / "megatron" / "iter_0000024").mkdir()  # nothing written yet
    assert [checkpoint.step_of(path) for path in checkpoint.steps(tmp_path)] == [3, 12, 20]


@pytest.mark.parametrize("moment", ["before", "moved", "left"])
def test_megatron_leaves_a_folder_that_it_loads(tmp_path, moment):
    iteration(tmp_path, 20)
    if moment == "moved":  # the process was killed while it left its result
        half = tmp_path / ".step_0000020.tmp"
        half.mkdir()
        (tmp_path / "megatron" / "iter_0000020").rename(half / "iter_0000020")
    for _ in range(2 if moment == "left" else 1):
        checkpoint.settle(tmp_path, 20, {"task": "sft", "step": 20, "tokens": 7, "model": {}})
    final = checkpoint.final(tmp_path)
    assert sorted(path.name for path in final.iterdir()) == [
        "iter_0000020", "latest_checkpointed_iteration.txt", "latest_train_state.pt", "state.json",
    ]  # fmt: skip
    assert (final / "latest_checkpointed_iteration.txt").read_text() == "20"
    assert not list(tmp_path.glob(".step*"))
