"""Checkpoints on disk: complete or absent, the newest few kept, the last one published.

`progress/` holds step_NNNNNNN/ folders. One appears by rename after its files are on disk, so a
folder of that name is complete whenever the process was killed. Knows no training framework.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json

STEP_NAME = re.compile(r"step_(\d{7})")


def steps(progress: str | Path) -> list[Path]:
    """The complete checkpoints in `progress`, oldest first."""
    progress = Path(progress)
    if not progress.is_dir():
        return []
    return sorted(path for path in progress.iterdir() if STEP_NAME.fullmatch(path.name))


def newest(progress: str | Path) -> Path | None:
    """The newest complete checkpoint in `progress`, or None."""
    return (steps(progress) or [None])[-1]


def step_of(checkpoint: str | Path) -> int:
    """The step that a checkpoint folder's name tells."""
    return int(STEP_NAME.fullmatch(Path(checkpoint).name)[1])


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


def prune(progress: str | Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what killed processes left half-made."""
    for path in steps(progress)[: -max(keep, 1)]:
        remove(path)
    for path in Path(progress).glob(".step_*.tmp"):
        shutil.rmtree(path)


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
