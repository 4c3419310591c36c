"""Checkpoints on disk: complete or absent, kept by rule, the last one published.

`progress/` holds step_NNNNNNN/ folders of the local engine, megatron/iter_NNNNNNN/ of
Megatron-Bridge, or nemo_rl/step_N/ of NeMo-RL. Each of the last two frameworks writes in its own
way; at the end its engine leaves step_NNNNNNN/ too. Knows no training framework.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemoflow import iterations
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json

STEP_NAME = re.compile(r"step_(\d{7})")
RL_NAME = re.compile(r"step_(\d+)")  # written as tmp_step_N and renamed (NeMo-RL, checkpoint.py)
KEPT = ("window", "milestones")  # folders beside a checkpoint, of those before it


def steps(progress: str | Path) -> list[Path]:
    """The complete checkpoints in `progress`, of whichever engine, oldest first."""
    progress = Path(progress)
    found = [
        *(path for path in entries(progress) if STEP_NAME.fullmatch(path.name)),
        *(path for path in entries(progress / iterations.FOLDER) if iterations.whole(path)),
        *(path for path in entries(progress / "nemo_rl") if RL_NAME.fullmatch(path.name)),
    ]
    return sorted(found, key=lambda path: (step_of(path), path.name))


def entries(folder: Path) -> list[Path]:
    """What lies in a folder that need not be there."""
    return list(folder.iterdir()) if folder.is_dir() else []


def newest(progress: str | Path) -> Path | None:
    """The newest complete checkpoint in `progress`, or None."""
    return (steps(progress) or [None])[-1]


def step_of(checkpoint: str | Path) -> int:
    """The step that a checkpoint folder's name tells."""
    return int(Path(checkpoint).name.rpartition("_")[2])


@contextmanager
def writing(progress: str | Path, step: int) -> Iterator[Path]:
    """A folder to write the checkpoint of `step` into; it gets its name when all is on disk.

    An exception inside leaves no checkpoint. One that exists already is replaced.
    """
    target = Path(progress) / f"step_{step:07d}"
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    sync_tree(temporary)
    remove(target)
    temporary.rename(target)
    sync(target.parent)


def kept(found: Iterable[int], options: Mapping[str, Any], stop: int | None = None) -> set[int]:
    """Those of the steps `found` that stay: the newest few, milestones, and the window.

    `options`: keep, and where set milestones (iterations between two) and window {iterations,
    every}, which ends at `stop`, the last step of the training; None knows of no end.
    """
    found = sorted(found)
    stay = set(found[-max(options["keep"], 1) :])
    return stay | set(among(found, "milestones", options, stop)).union(
        among(found, "window", options, stop)
    )


def among(
    found: Iterable[int], kind: str, options: Mapping[str, Any], stop: int | None
) -> list[int]:
    """Those of the steps `found` that are of one of the kinds of KEPT."""
    asked = options.get(kind)
    if not asked:
        return []
    if kind == "milestones":
        return [step for step in found if step % asked == 0]
    inside = () if stop is None else window_steps(asked, stop)
    return [step for step in found if step in inside]


def window_steps(asked: Mapping[str, Any], stop: int) -> range:
    """The steps before `stop`, the last one, that a window {iterations, every} has."""
    first, every = max(stop - asked["iterations"] + 1, 1), asked["every"]
    return range(-(-first // every) * every, stop, every)


def prune(progress: str | Path, options: Mapping[str, Any], stop: int | None = None) -> None:
    """Remove the checkpoints that no rule of `kept` keeps, and what killed processes left behind.

    Never removes the newest complete one, nor one of Megatron's that is still being written.
    """
    found = steps(progress)
    stay = kept(map(step_of, found), options, stop)
    for path in found[:-1]:
        if step_of(path) not in stay:
            remove(path)
    for pattern in (".step_*.tmp", f"{iterations.FOLDER}/.iter_*.gone.tmp"):
        for path in Path(progress).glob(pattern):
            shutil.rmtree(path)


def settle(progress: str | Path, step: int, state: Mapping[str, Any]) -> None:
    """Make Megatron's checkpoint of `step` a finished job's result: a folder that Megatron loads.

    `state` {task, step, tokens, model} goes into its state.json. Killed at any moment, it can
    simply be called again.
    """
    progress = Path(progress)
    iterations.rescue(progress)
    if not (progress / f"step_{step:07d}").exists():
        source = progress / iterations.FOLDER / f"iter_{step:07d}"
        with writing(progress, step) as folder:
            iterations.track(folder, source)
            write_json(folder / "state.json", state)
            source.rename(folder / source.name)
    finish(progress, step)


def set_aside(
    progress: str | Path, target: Path, options: Mapping[str, Any], stop: int | None
) -> list[Path]:
    """Move window and milestones out of `progress` to beside `target`; the folders they are in.

    They replace those of a former build. Killed at any moment, it can simply be called again.
    """
    progress, told = Path(progress), Path(progress) / "kept.json"
    folders = {kind: target.with_name(kind) for kind in KEPT}
    if not told.exists():
        for folder in folders.values():
            folder.with_suffix(".json").unlink(missing_ok=True)
            remove(folder)
        write_json(told, KEPT)
    for kind, folder in folders.items():
        chosen = among(map(step_of, steps(progress)), kind, options, stop)
        for path in steps(progress):
            if step_of(path) in chosen:
                folder.mkdir(exist_ok=True)
                remove(folder / path.name)
                path.rename(folder / path.name)
    return [folder for folder in folders.values() if folder.exists()]


def finish(progress: str | Path, step: int) -> None:
    """Say in final.json that training is done and which checkpoint is its result."""
    write_json(Path(progress) / "final.json", {"checkpoint": f"step_{step:07d}", "step": step})


def final(progress: str | Path) -> Path | None:
    """The checkpoint that a finished job leaves, while it still stands in `progress`; or None."""
    told = Path(progress) / "final.json"
    path = Path(progress) / read_json(told)["checkpoint"] if told.exists() else None
    return path if path and path.is_dir() else None


def publish(progress: str | Path, target: str | Path) -> None:
    """Rename the final checkpoint of `progress` to `target`, replacing an older one.

    Killed at any moment, it can simply be called again. Raises UserError when no job finished.
    """
    progress, target = Path(progress), Path(target)
    source, former = final(progress), target.with_name(f".{target.name}.former")
    if source:
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)
            target.rename(former)
        source.rename(target)
        sync(target.parent)
        sync(progress)
    elif not ((progress / "final.json").exists() and target.is_dir()):
        raise UserError(f"{progress}: no finished checkpoint to publish; run the stage again")
    shutil.rmtree(former, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a checkpoint so that no reader ever sees a part of it under its own name."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.gone.tmp")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed)


def sync_tree(folder: Path) -> None:
    """Put every file of a folder, and the folder itself, on disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Put one file or one folder's entries on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
