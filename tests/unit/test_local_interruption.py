"""SIGTERM and the time limit: the step is finished and saved, and the next start loses nothing."""

import os
import signal
import time
from types import SimpleNamespace

import pytest

import local_jobs
from local_jobs import TASKS, run_task
from nemoflow import checkpoint, metrics
from nemoflow.engines.local import interruption
from nemoflow.engines.local.interruption import Interruption
from nemoflow.launch import INTERRUPTED

pytestmark = pytest.mark.usefixtures("one_thread", "reward_by_length")


@pytest.fixture
def at_step(monkeypatch):
    """Does something in the middle of one step of a task."""

    def arrange(task, step, act):
        trainer = TASKS[task][1]
        real = trainer.train_step

        def train_step(self, number, rate):
            if number + 1 == step:
                act()
            return real(self, number, rate)

        monkeypatch.setattr(trainer, "train_step", train_step)

    return arrange


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def curve(progress):
    """The lines of metrics.jsonl but for timings."""
    return [
        {key: value for key, value in line.items() if key not in metrics.TIMINGS}
        for line in metrics.read(progress / "metrics.jsonl")
    ]


@pytest.mark.parametrize("task", list(TASKS))
def test_sigterm_saves_the_step_at_work_and_the_end_is_the_same(
    task, inputs, tmp_path, at_step, capsys
):
    """Interrupted off the save interval of three, off the log interval of two, and once on both."""
    assert run_task(task, tmp_path / "whole", inputs) == 0
    before = signal.getsignal(signal.SIGTERM)
    for step in (1, 5, 6):
        at_step(task, step, terminate)
        assert run_task(task, tmp_path / "cut", inputs) == INTERRUPTED
        assert checkpoint.newest(tmp_path / "cut").name == f"step_{step:07d}"
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"micro.{task}: SIGTERM: ended after step {step} of ")
        assert f"step_{step:07d}" in said
    assert signal.getsignal(signal.SIGTERM) == before
    assert run_task(task, tmp_path / "cut", inputs) == 0
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    for name in ("whole", "cut"):
        (tmp_path / name / "metrics.jsonl").unlink()
    assert local_jobs.digests(tmp_path / "cut") == local_jobs.digests(tmp_path / "whole")


def test_the_last_step_is_finished_whatever_is_asked(inputs, tmp_path, at_step):
    at_step("sft", 2, terminate)
    assert run_task("sft", tmp_path, inputs, iterations=2) == 0
    assert checkpoint.final(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    """What the engine takes for the time of day; the limit is at 1000."""
    found = SimpleNamespace(now=935.0)
    monkeypatch.setattr(interruption, "time", SimpleNamespace(time=lambda: found.now))
    monkeypatch.setenv("NEMOFLOW_ENDS", "1000")
    return found


def test_training_ends_before_the_time_limit(inputs, tmp_path, clock, at_step, capsys):
    """After a fourth step of 20 s, the fifth and its checkpoint might not end in time."""
    at_step("pretrain", 4, lambda: setattr(clock, "now", clock.now + 20))
    assert run_task("pretrain", tmp_path, inputs) == INTERRUPTED
    assert checkpoint.newest(tmp_path).name == "step_0000004"
    assert "its time limit is 45 s away: ended after step 4 of 14" in capsys.readouterr().err


def test_the_margin_is_twice_the_longest_step_and_ten_seconds(clock):
    watch = Interruption()
    clock.now += 5
    assert watch.reason() is None
    for now, reason in ((941, None), (980, None), (981, "its time limit is 19 s away")):
        watch.longest = 5.0
        clock.now = watch.seen = now
        assert watch.reason() == reason


def test_a_limit_that_is_past_trains_and_saves_nothing(inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEMOFLOW_ENDS", str(time.time() - 5))
    assert run_task("sft", tmp_path, inputs) == INTERRUPTED
    assert checkpoint.newest(tmp_path) is None
    assert "ended after step 0 of 14; the same command goes on from the start" in (
        capsys.readouterr().err
    )


def test_sigint_keeps_its_meaning(inputs, tmp_path, at_step):
    at_step("sft", 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run_task("sft", tmp_path, inputs)
    assert checkpoint.newest(tmp_path) is None
