"""NeMo-RL's own program as a process of the first node."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

OUT_OF_TIME = "Timeout has been reached"  # grpo.py, dpo.py: checkpoint_must_save_by, saved
TORCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = 30.0  # seconds between SIGTERM and SIGKILL
MARGIN = 1800.0  # the RL YAMLs leave 30 of 240 minutes for start and last checkpoint


def save_by(now: float) -> str | None:
    """`checkpoint_must_save_by` from the job's time limit; None without one.

    NeMo-RL counts from the first step on and takes a mean step off by itself (utils/timer.py,
    `TimeoutChecker`), so the margin is for the start, and for the last checkpoint. Of a short job
    a quarter is left.
    """
    if "NEMOFLOW_ENDS" not in os.environ:
        return None
    left = float(os.environ["NEMOFLOW_ENDS"]) - now
    return duration(max(60.0, left - min(MARGIN, left / 4)))


def duration(seconds: float) -> str:
    """DD:HH:MM:SS."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day:02d}:{hour:02d}:{minute:02d}:{second:02d}"


class Driver:
    """The running program; its output goes on to ours, and is listened to."""

    def __init__(self, program: Path, config: Path, home: Path, environment: Mapping[str, str]):
        kept = {name: value for name, value in os.environ.items() if name not in TORCH}
        self.out_of_time = self.asked = False
        self.process = subprocess.Popen(
            [sys.executable, str(program), "--config", str(config)],
            cwd=home,
            env=kept | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.listener = Thread(target=self.listen, daemon=True)
        self.listener.start()
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, *_: object) -> None:
        """Take note of SIGTERM, and pass it on."""
        self.asked = True
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def listen(self) -> None:
        """Pass the output on."""
        for line in self.process.stdout:
            self.out_of_time |= OUT_OF_TIME in line.decode(errors="replace")
            sys.stdout.buffer.write(line)
            sys.stdout.flush()

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, after waiting for that at most `seconds`."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self.listener.join(PATIENCE)
        return True

    def must_end(self) -> bool:
        """Whether SIGTERM came, or the time limit is a minute away.

        NeMo-RL cannot be asked to save at once: its newest checkpoint is what stays.
        """
        ends = os.environ.get("NEMOFLOW_ENDS")
        return self.asked or (ends is not None and time.time() > float(ends) - 60)

    def stop(self) -> None:
        """End it and all it has started here."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, number)
            if self.ended(PATIENCE):
                return
