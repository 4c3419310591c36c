"""When training must stop itself, and the marker that keeps a retry from the same wall."""

import math
import sys
from pathlib import Path
from statistics import median

from nemoflow import checkpoint
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json
from nemoflow.launch import STOPPED

RECENT = 50
ENOUGH = 10
MARKER = "stopped.json"


class Diverged(Exception):
    """Training must stop: the loss or its gradient is not finite, or the loss spiked."""

    def __init__(self, reason: str, loss: float):
        super().__init__(reason)
        self.reason, self.loss = reason, loss


class SpikeGuard:
    """Knows the last 50 losses and refuses one above `factor` times their median.

    `factor` None refuses only what is not finite. Ten losses are enough to judge by.
    """

    def __init__(self, factor: float | None):
        self.factor = factor
        self.recent: list[float] = []

    def check(self, loss: float, norm: float) -> None:
        """Raise Diverged for a loss or gradient norm that training must not go on from."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(f"loss {loss} and gradient norm {norm}: not finite", loss)
        if self.factor and len(self.recent) >= ENOUGH and loss > self.factor * median(self.recent):
            raise Diverged(
                f"loss {loss:.4g} is over {self.factor} times the median of the last"
                f" {len(self.recent)} ({median(self.recent):.4g})",
                loss,
            )
        self.recent = [*self.recent, loss][-RECENT:]


def stop(progress: Path, title: str, step: int, diverged: Diverged) -> int:
    """Leave word that training stopped itself in `step`, and tell the user; the exit code."""
    newest = checkpoint.newest(progress)
    told = {
        "step": step,
        "reason": diverged.reason,
        "loss": repr(diverged.loss),
        "checkpoint": newest and newest.name,
    }
    write_json(progress / MARKER, told)
    print(
        f"error: {title}: stopped at step {step}: {diverged.reason}."
        f" The last good checkpoint is {newest or 'none yet'}.",
        file=sys.stderr,
    )
    return STOPPED


def refuse_stopped(progress: Path, title: str) -> None:
    """Raise UserError when a former start of this job stopped itself."""
    path = progress / MARKER
    if path.exists():
        told = read_json(path)
        raise UserError(
            f"{title}: training stopped itself at step {told['step']} ({told['reason']}). The"
            " same settings meet the same wall: lower schedule.peak, lengthen"
            f" warmup_iterations, tighten optimizer.clip or raise spike. Removing {path} tries"
            " again from the last good checkpoint"
        )
