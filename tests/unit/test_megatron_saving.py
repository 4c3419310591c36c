"""When a training on a cluster makes its last checkpoint: with time enough to write it."""

import os
import signal

import pytest

from nemoflow import iterations
from nemoflow.engines.megatron import saving

OPTIONS = {"keep": 1, "save_every": 10}


class Clock:
    """Time as a test tells it."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now


@pytest.fixture
def signals(monkeypatch):
    """The signals that were sent."""
    sent = []
    monkeypatch.setattr(saving.os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(saving, "time", made)
    return made


def write(progress, step):
    folder = progress / iterations.FOLDER / f"iter_{step:07d}"
    folder.mkdir(parents=True)
    for name in iterations.WRITTEN:
        (folder / name).touch()


def train(watched, clock, progress, seconds, save):
    """Steps of so many seconds, saves of `save`, until it is told to stop; the step and time."""
    writing = {}
    for step in range(1, 10_000):
        watched.begin_step()
        clock.now += seconds
        for at in [at for at, done in writing.items() if clock.now >= done]:
            write(progress, at)
            del writing[at]
        watched.end_step(step)
        if watched.reason != "SIGTERM":
            return step, clock.now, max(writing.values(), default=clock.now)
        if step % OPTIONS["save_every"] == 0:
            writing[step] = clock.now + save
    raise AssertionError("never stopped")


@pytest.mark.parametrize("seconds", [1.0, 20.0, 90.0])
@pytest.mark.parametrize("save", [0.5, 60.0, 400.0])
def test_the_last_save_has_the_time_that_the_others_took(
    tmp_path, monkeypatch, clock, signals, seconds, save
):
    monkeypatch.setenv("NEMOFLOW_ENDS", str(clock.now + 7200))
    watched = saving.Saving(tmp_path, OPTIONS, 10_000)
    step, now, earlier_save_ends = train(watched, clock, tmp_path, seconds, save)
    assert signals == [(os.getpid(), signal.SIGTERM)]
    assert max(now, earlier_save_ends) + save <= watched.ends  # it waits for the one at work
    assert watched.ends - now < 2.5 * save + 15 * seconds + saving.SPARE  # and wastes no more
    watched.end_step(step + 1)
    assert len(signals) == 1
    watched.close()


def test_without_a_limit_it_goes_on(tmp_path, monkeypatch, clock, signals):
    monkeypatch.delenv("NEMOFLOW_ENDS", raising=False)
    watched = saving.Saving(tmp_path, OPTIONS, 10_000)
    for step in range(1, 5):
        watched.begin_step()
        clock.now += 1e6
        watched.end_step(step)
    assert signals == []


def test_a_short_job_trains_too(tmp_path, monkeypatch, clock, signals):
    monkeypatch.setenv("NEMOFLOW_ENDS", str(clock.now + 120))
    watched = saving.Saving(tmp_path, OPTIONS, 10_000)
    step, now, _ = train(watched, clock, tmp_path, 5.0, 0.5)
    assert step >= 8 and now < watched.ends
