"""One command line for the heavy work of a stage, and its run.

On one machine it is a subprocess. Its output goes to the job's log and, line by line, to the
terminal.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nemoflow.errors import UserError

ENGINES = {"local": "nemoflow.engines.local"}
STOPPED = 3  # exit code of a training that stopped itself; it has said why


def command(engine: str, job: Path) -> list[str]:
    """The command that runs a job file with an engine.

    Raises:
        UserError: this release does not launch the engine.
    """
    if engine not in ENGINES:
        raise UserError(
            f"engine {engine}: jobs of this engine run inside the NeMo containers on a cluster;"
            " this release plans and checks them, but does not launch them. Use a run whose stages"
            " say engine: local, such as super3-tiny"
        )
    return [sys.executable, "-m", ENGINES[engine], str(job)]


def harness(job: Path) -> list[str]:
    """The command that scores a model as a job file says, with lm-eval."""
    return [sys.executable, "-m", "nemoflow.engines.harness", str(job)]


def environment() -> dict[str, str]:
    """The environment of a heavy process.

    GNU OpenMP spins while it waits; two threads on two cores with any competitor then lose ten
    times their speed, hence the short spin. The bar is drawn where the terminal is ours.
    """
    return {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "GOMP_SPINCOUNT": "1000",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "PYTHONUNBUFFERED": "1",
        **({"NEMOFLOW_BAR": "1"} if sys.stderr.isatty() else {}),
    }


def run(argv: Sequence[str], log: Path, keep_open: Sequence[int] = (), shown: bool = True) -> None:
    """Run a command, its output appended to `log` and shown; `keep_open` are inherited locks.

    A signal that asks this process to end is passed on, and ends it when the command has ended.

    Raises:
        UserError: the command failed; its own last words are in the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
            pass_fds=keep_open,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: process.send_signal(received))
        while chunk := process.stdout.read1():
            file.write(chunk)
            file.flush()
            if shown:
                sys.stderr.buffer.write(chunk)
                sys.stderr.flush()
        code = process.wait()
    if code == STOPPED:
        raise UserError(f"training stopped itself; why, and what to do, stands above and in {log}")
    if code < 0:
        name = signal.Signals(-code).name
        raise UserError(
            f"{Path(argv[0]).name} {' '.join(argv[1:])} was ended by {name}; the same command goes"
            f" on from the newest checkpoint (log: {log})"
        )
    if code:
        raise UserError(f"{' '.join(argv[1:])} failed with exit code {code} (log: {log})")
