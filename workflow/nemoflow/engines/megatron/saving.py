"""Checkpoints of a running job: which stay, how long one takes, and when to make the last."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemoflow import checkpoint, iterations

UNKNOWN = 600.0  # seconds that the first checkpoint of an attempt may take
SPARE = 30.0  # seconds for the processes to end in
REMEMBERED = 5  # saves


class Saving:
    """Watches one job's saves and steps, in its first process.

    Megatron-Bridge saves in the background: `began` and `look` take the time from the step that is
    saved until the tracker file names it. Stopping goes by SIGTERM to this very process, since
    Megatron-Bridge asks in every step whether any process got one, and saves then.
    """

    def __init__(self, progress: Path, options: Mapping[str, Any], stop: int):
        self.progress, self.options, self.stop = progress, options, stop
        ends = os.environ.get("NEMOFLOW_ENDS")
        self.ends = float(ends) if ends else None
        self.reason = "SIGTERM"
        self.took: deque[float] = deque(maxlen=REMEMBERED)
        self.waits_for: int | None = None
        self.started = self.seen = time.time()
        self.longest = 0.0
        self.pruning: threading.Thread | None = None

    def begin_step(self) -> None:
        """Before a step: has the save at work ended, and is there time for another step?"""
        now = time.time()
        self.seen = now
        if self.waits_for is not None and self.is_saved(self.waits_for):
            self.took.append(now - self.since)
            self.waits_for = None
            self.prune()

    def end_step(self, step: int) -> None:
        """After a step, before Megatron-Bridge saves it: note that, and stop it in time."""
        now = time.time()
        self.longest = max(self.longest, now - self.seen)
        if self.waits_for is None and step % self.options["save_every"] == 0:
            self.waits_for, self.since = step, now
        if self.ends is not None and now + self.margin() > self.ends and self.reason == "SIGTERM":
            self.reason = f"its time limit is {max(0, round(self.ends - now))} s away"
            os.kill(os.getpid(), signal.SIGTERM)

    def margin(self) -> float:
        """Seconds before the time limit at which the last save must begin.

        That save, one that is still at work, and the step until the next question. Of an attempt
        without any save yet: ten minutes, but at most a quarter of its time.
        """
        first = min(UNKNOWN, (self.ends - self.started) / 4)
        save = max(self.took) if self.took else first
        spare = min(SPARE, first)
        return save * (2 if self.waits_for is not None else 1) + self.longest + spare

    def is_saved(self, step: int) -> bool:
        """Whether the checkpoint of a step is whole."""
        return iterations.whole(self.progress / iterations.FOLDER / f"iter_{step:07d}")

    def prune(self) -> None:
        """Remove what no rule keeps; training does not wait for it."""
        if self.pruning is None or not self.pruning.is_alive():
            told = (self.progress, self.options, self.stop)
            self.pruning = threading.Thread(target=checkpoint.prune, args=told)
            self.pruning.start()

    def close(self) -> None:
        """Wait for what is being removed."""
        if self.pruning is not None:
            self.pruning.join()
