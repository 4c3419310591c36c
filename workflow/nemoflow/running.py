"""The heavy work of a stage as a process: its output, its signals, its end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nemoflow.errors import UserError
from nemoflow.launch import INTERRUPTED, STOPPED, Line

LAST_WORDS = 8192  # bytes of output in which a hidden command's error is looked for


def environment(line: Line) -> dict[str, str]:
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
        **line.env,
    }


def run(line: Line, log: Path, keep_open: Sequence[int] = (), shown: bool = True) -> None:
    """Run a line, its output appended to `log` and shown; `keep_open` are inherited locks.

    A signal that asks this process to end is passed on, and ends it when the command has ended.

    Raises:
        UserError: the command failed; its own last words are in the log, and in the error where
            they were an error of the user's that was not shown.
    """
    if line.argv[0] == "srun" and "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            "this job starts its processes by srun, inside a Slurm job; build it with a profile"
            " whose executor is slurm, such as profiles/b200"
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file, served(line.beside, log):
        process = subprocess.Popen(
            line.argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(line),
            pass_fds=keep_open,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: pass_on(received, line, process))
        last = b"\n"
        while chunk := process.stdout.read1():
            file.write(chunk)
            file.flush()
            last = (last + chunk)[-LAST_WORDS:]
            if shown:
                sys.stderr.buffer.write(chunk)
                sys.stderr.flush()
        code = process.wait()
    if code and not shown and (said := last.rpartition(b"\nerror: ")[2]) != last:
        raise UserError(f"{said.decode(errors='replace').strip()} (log: {log})")
    tell(line, code, log)


def pass_on(number: int, line: Line, process: subprocess.Popen) -> None:
    """Hand a signal to the work. srun would kill its tasks at once: Slurm hands it to them."""
    if line.argv[0] == "srun":
        subprocess.Popen(["scancel", "--signal=TERM", os.environ["SLURM_JOB_ID"]])
    else:
        process.send_signal(number)


def tell(line: Line, code: int, log: Path) -> None:
    """Raise UserError for any exit code but 0, in words."""
    if code == STOPPED:
        raise UserError(f"training stopped itself; why, and what to do, stands above and in {log}")
    if code == INTERRUPTED:
        raise UserError(
            "training saved a checkpoint and ended early; the same command goes on from there"
            f" (log: {log})"
        )
    if code < 0:
        name = signal.Signals(-code).name
        raise UserError(
            f"{Path(line.argv[0]).name} {' '.join(line.argv[1:])} was ended by {name}; the same"
            f" command goes on from the newest checkpoint (log: {log})"
        )
    if code:
        raise UserError(f"{' '.join(line.argv[1:])} failed with exit code {code} (log: {log})")


@contextmanager
def served(line: Line | None, log: Path) -> Iterator[None]:
    """Run a service beside the work, its output in a log of its own; end it with the work."""
    if line is None:
        yield
        return
    with open(log.with_name(f"{log.stem}.service.log"), "ab") as file:
        service = subprocess.Popen(line.argv, stdout=file, stderr=file, env=environment(line))
        try:
            yield
        finally:
            service.terminate()
            service.wait()
