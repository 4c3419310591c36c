"""Which checkpoints an average is made of."""

from pathlib import Path

import pytest

from nemoflow import manifest, merging
from nemoflow.errors import UserError


@pytest.fixture
def phase(tmp_path, monkeypatch):
    """A phase of 36 steps whose window kept every fourth from 24 on; its manifest's path."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/x/pretrain/phase2")
    for step in (24, 28, 32):
        (folder / f"window/step_{step:07d}").mkdir(parents=True)
        (folder / f"window/step_{step:07d}/weights").write_text(str(step))
    manifest.write(folder / "window.json", {"stage": "pretrain"}, steps=[24, 28, 32])
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/weights").write_text("36")
    manifest.write(folder / "checkpoint.json", {"stage": "pretrain"}, step=36, tokens=9)
    return str(folder / "checkpoint.json")


def steps(phase, iterations, every=4):
    content = manifest.read(phase)
    found = merging.checkpoints(phase, content, {"iterations": iterations, "every": every})
    return [int((Path(folder) / "weights").read_text()) for folder in found]


def test_a_window_ends_with_the_last_checkpoint(phase):
    assert steps(phase, 5) == [32, 36]
    assert steps(phase, 8) == [32, 36]  # 28 is 8 iterations back: not inside
    assert steps(phase, 9) == [28, 32, 36]
    assert steps(phase, 12, every=8) == [32, 36]


def test_what_was_not_kept_is_named(phase):
    with pytest.raises(UserError, match=r"no checkpoint of step 20 was kept \(3 of 4 are in"):
        steps(phase, 17)
    Path(phase).with_name("window.json").unlink()
    with pytest.raises(UserError, match="set options.window of the phase before it trains"):
        steps(phase, 8)


def test_a_kept_checkpoint_of_another_build_is_refused(phase):
    (Path(phase).parent / "window/step_0000032/weights").write_text("another")
    with pytest.raises(UserError, match="window"):
        steps(phase, 8)
