"""A command's wall time and peak memory, with all its processes."""

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemoflow.errors import UserError

EVERY = 0.05  # seconds between two looks at the memory
SHARE = 0.02  # of the time may go into looking: the kernel walks all pages


@dataclass(frozen=True)
class Measure:
    """What a command took.

    `memory` is the peak of the sum of its processes' PSS in bytes, `said` what it printed.
    """

    seconds: float
    memory: int
    said: str


def measure(
    command: Sequence[str | Path], folder: Path, log: Path, environment: Mapping[str, str] = {}
) -> Measure:
    """Run a command from its start to its end, its output in `log`; UserError when it fails."""
    os.sync()  # what earlier commands wrote does not slow this one
    with open(log, "w") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        ended = os.pidfd_open(process.pid)
        peak, pause = 0, EVERY
        while not select.select([ended], [], [], pause)[0]:
            looked = time.perf_counter()
            peak = max(peak, sum(map(memory_of, tree(process.pid))))
            pause = max(EVERY, (time.perf_counter() - looked) / SHARE)
        seconds = time.perf_counter() - began
        os.close(ended)
        process.wait()
    said = log.read_text(errors="replace")
    if process.returncode:
        last = "\n".join(said.splitlines()[-12:])
        raise UserError(f"{' '.join(map(str, command))}\nfailed, its log is {log}:\n{last}")
    return Measure(seconds, peak, said)


def tree(process: int) -> list[int]:
    """A process and all its descendants."""
    found = [process]
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = thread.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            found += tree(int(child))
    return found


def memory_of(process: int) -> int:
    """Its proportional set size in bytes: a page that n processes share counts 1/n; 0 once ended.

    The kernel's Documentation/filesystems/proc.rst, smaps_rollup.
    """
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
