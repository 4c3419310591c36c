"""Megatron-Bridge's folder of checkpoints, without torch: which are whole, and which is the newest.

It writes iter_NNNNNNN/ rank by rank, then train_state.pt into it, beside it two tracker files that
name the newest, and run_config.yaml into it last (`save_checkpoint` in its
training/checkpointing.py). A process killed between any two of these leaves a torn one.
"""

import shutil
import zipfile
from pathlib import Path

from nemoflow import torch_dist
from nemoflow.errors import UserError
from nemoflow.files import write_whole

FOLDER = "megatron"
STATE = "train_state.pt"
TRACKED_STATE = "latest_train_state.pt"
WRITTEN = (".metadata", "metadata.json", STATE, "run_config.yaml")


def whole(folder: Path) -> bool:
    """Whether a folder is an iteration's whose last file was written; reads nothing."""
    named = torch_dist.ITERATION.fullmatch(folder.name) is not None
    return named and all((folder / name).exists() for name in WRITTEN)


def flaw(folder: Path) -> str | None:
    """What an iteration's folder lacks, or None: every file is there, and as long as it must be."""
    if missing := [name for name in WRITTEN if not (folder / name).exists()]:
        return f"no {missing[0]} in it"
    if not zipfile.is_zipfile(folder / STATE):  # torch.save writes its index last
        return f"{STATE} is cut short"
    if (folder / "run_config.yaml").stat().st_size == 0:
        return "run_config.yaml is empty"
    try:
        torch_dist.check(folder)
        torch_dist.model_config(folder)
    except UserError as error:
        return str(error)
    return None


def track(folder: Path, iteration: Path) -> None:
    """Write the tracker files of a folder: its newest checkpoint is that of `iteration`."""
    write_whole(folder / TRACKED_STATE, (iteration / STATE).read_bytes())
    number = torch_dist.ITERATION.fullmatch(iteration.name)[1]
    write_whole(folder / torch_dist.TRACKER, str(int(number)))


def rescue(progress: Path) -> None:
    """Put back the iterations that a process killed while it left its result had moved away."""
    for half in progress.glob(f".step_*.tmp/{torch_dist.ITERATION_GLOB}"):
        half.rename(progress / FOLDER / half.name)


def mend(progress: Path) -> list[str]:
    """Make the newest whole checkpoint the one that Megatron-Bridge finds; what was wrong, said.

    Torn ones that are newer are removed: they were being written when their process was killed.
    """
    rescue(progress)
    folder, said = progress / FOLDER, []
    for iteration in sorted(folder.glob(torch_dist.ITERATION_GLOB), reverse=True):
        if problem := flaw(iteration):
            said.append(f"{iteration} was being written when its job ended ({problem}); removed")
            shutil.rmtree(iteration)
        else:
            if tracked(folder) != iteration.name:
                track(folder, iteration)
            return said
    for name in (torch_dist.TRACKER, TRACKED_STATE):
        (folder / name).unlink(missing_ok=True)
    return said


def tracked(folder: Path) -> str | None:
    """The newest checkpoint by both tracker files; None where they are torn, missing or unequal."""
    try:
        number = int((folder / torch_dist.TRACKER).read_text())
        state = (folder / TRACKED_STATE).read_bytes()
    except (OSError, ValueError):
        return None
    name = f"iter_{number:07d}"
    own = folder / name / STATE
    return name if own.exists() and own.read_bytes() == state else None
