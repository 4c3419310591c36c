"""Room on the disk for checkpoints: estimated from the model and from what is kept."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow import checkpoint, room, specs
from nemoflow.config import Config
from nemoflow.errors import UserError

OPTIONS = {"keep": 2, "save_every": 10}


def phase2(run):
    """The identity of a run's second phase."""
    config = Config(Path(__file__).parents[2] / "config")
    return specs.of(config, "pretrain", {"run": run, "phase": "phase2"}).identity


@pytest.fixture
def super3():
    """The identity of super3's second phase."""
    return phase2("super3")


def test_a_full_disk_is_named_before_anything_starts(tmp_path, monkeypatch, super3):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=4 * 10**12))
    said = r"has 4.00TB free, and the job needs about 5.19TB: 3 more checkpoints of 1.73TB.*keep"
    with pytest.raises(UserError, match=said):
        room.check(tmp_path, super3, OPTIONS, "pretrain.phase2")
    room.check(tmp_path, super3, {**OPTIONS, "keep": 1}, "pretrain.phase2")
    room.check(tmp_path, {**super3, "lora": {}}, OPTIONS, "sft")
    room.check(tmp_path, phase2("nano3"), {**OPTIONS, "keep": 1}, "pretrain.phase2")
    monkeypatch.setenv("NEMOFLOW_UNCHECKED_DISK", "1")
    room.check(tmp_path, super3, OPTIONS, "pretrain.phase2")


def test_what_stands_there_needs_no_more_room(tmp_path, monkeypatch, super3):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 10**12))
    for step in (10, 20):
        with checkpoint.writing(tmp_path, step):
            pass
    room.check(tmp_path, super3, OPTIONS, "pretrain.phase2")


@given(
    st.integers(1, 400), st.integers(1, 20), st.integers(1, 4),
    st.none() | st.integers(1, 5), st.none() | st.integers(1, 5),
)  # fmt: skip
def test_the_most_at_one_time(stop, every, keep, milestones, window):
    """As many as a training that saves and prunes has on disk at its fullest."""
    options = {"keep": keep, "save_every": every, "milestones": milestones and milestones * every}
    options["window"] = window and {"iterations": 5 * every, "every": window * every}
    held: set[int] = set()
    fullest = 0
    for step in [*range(every, stop, every), stop]:
        held |= {step}
        fullest = max(fullest, len(held))
        held = checkpoint.kept(held, options, stop)
    assert fullest <= room.most(options, stop) <= fullest + 1
