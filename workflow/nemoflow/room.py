"""Whether the disk has room for the checkpoints of a training job, asked before it starts."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nemoflow import checkpoint, cost, spec
from nemoflow.config.model import Model
from nemoflow.errors import UserError
from nemoflow.progress import in_bytes

SPARE = 2**20  # bytes for metrics and logs


def check(
    progress: Path, identity: Mapping[str, Any], options: Mapping[str, Any], title: str
) -> None:
    """Raise UserError where the disk under `progress` is too full for what the job will keep.

    NEMOFLOW_UNCHECKED_DISK, set to anything, says that the file system's figure means nothing.
    """
    if "model" not in identity or os.environ.get("NEMOFLOW_UNCHECKED_DISK"):
        return
    told = identity["model"]
    model = Model.model_validate({**told, "moe": {"latent": None, **told["moe"]}})
    one = cost.stored(model, "lora" in identity, mtp=not title.startswith("rl"))
    there = [checkpoint.step_of(path) for path in checkpoint.steps(progress)]
    count = most(options, spec.last_step(identity), there) - len(there)
    free, needed = shutil.disk_usage(progress).free, one * max(count, 1) + SPARE
    if free < needed:
        raise UserError(
            f"{title}: {progress} has {in_bytes(free)} free, and the job needs about"
            f" {in_bytes(needed)}: {count} more checkpoints of {in_bytes(one)}. Free some (python"
            " -m nemoflow disk tells what takes room), or keep fewer: options.keep, milestones,"
            " window. Where the figure is wrong, set NEMOFLOW_UNCHECKED_DISK=1"
        )


def most(options: Mapping[str, Any], stop: int | None, there: Iterable[int] = ()) -> int:
    """The most checkpoints that lie on disk at one time, beginning with those `there`.

    One more than are kept, since the next is written before the oldest goes.
    """
    there, every = list(there), options["save_every"]
    first = max(there, default=0)
    stop = stop or first + (options["keep"] + 1) * every
    planned = {*there, *range(first - first % every + every, stop, every), stop}
    return min(len(checkpoint.kept(planned, options, stop)) + 1, len(planned))
