"""NeMo-RL's step_N folders: which are whole, what a kill has left, which one is the result.

NeMo-RL writes tmp_step_N and renames it; where step_N exists it is old_step_N for a moment
(utils/checkpoint.py, `finalize_checkpoint`). It resumes from the highest number by itself.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from nemoflow import checkpoint
from nemoflow.files import read_json, write_json
from nemoflow.progress import say

INITIAL = "initial"  # the start model in Megatron's format, converted by NeMo-RL


def steps(work: Path) -> dict[int, Path]:
    """The step_N folders by number, lowest first."""
    found = [path for path in work.glob("step_*") if checkpoint.RL_NAME.fullmatch(path.name)]
    return dict(sorted((checkpoint.step_of(path), path) for path in found))


def newest(work: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max(steps(work), default=0)


def info(folder: Path) -> dict[str, Any]:
    """training_info.json of a checkpoint; empty where it cannot be read."""
    try:
        return read_json(folder / "training_info.json")
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def whole(folder: Path) -> bool:
    """Whether a step_N folder has what NeMo-RL reads when it resumes."""
    weights = folder / "policy" / "weights"
    filled = any(path.is_file() and path.stat().st_size for path in weights.rglob("*"))
    return bool(info(folder)) and filled and (folder / "train_dataloader.pt").is_file()


def clean(work: Path, title: str) -> None:
    """Remove what a killed job left half-made, and say so, before NeMo-RL looks for checkpoints.

    The conversion of the start model is kept once a checkpoint exists: only then is it known whole.
    """
    for path in sorted(work.glob("old_step_*")):
        kept = path.with_name(path.name.removeprefix("old_"))
        if not kept.exists():
            path.rename(kept)
    broken = [path for path in steps(work).values() if not whole(path)]
    for path in [*work.glob("tmp_step_*"), *work.glob("old_step_*"), *broken]:
        say(f"{title}: {path} is no whole checkpoint; removed")
        shutil.rmtree(path)
    if not steps(work):
        shutil.rmtree(work / INITIAL, ignore_errors=True)


def discard(work: Path, step: int) -> None:
    """Remove the checkpoints of `step` and later, whose weights are spoiled."""
    for number, path in steps(work).items():
        if number >= step:
            shutil.rmtree(path)


def finish(progress: Path, work: Path, step: int, model: dict[str, Any]) -> None:
    """Make step_N of `work` the checkpoint of `progress` that the stage publishes.

    NeMo-RL's copy of its config names folders of this machine, so it stays out of the product.
    """
    target, source = progress / f"step_{step:07d}", work / f"step_{step}"
    if source.exists():
        tokens = int(info(source).get("total_valid_tokens", 0))
        (source / "config.yaml").unlink(missing_ok=True)
        state = {"task": "rl", "step": step, "tokens": tokens, "model": model}
        write_json(source / "state.json", state)
        checkpoint.sync_tree(source)
        source.rename(target)
    checkpoint.finish(progress, step)
    shutil.rmtree(work, ignore_errors=True)
