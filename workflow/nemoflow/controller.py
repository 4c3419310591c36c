"""Snakemake inside a Slurm job: what `python -m nemoflow submit` submits.

A job that was requeued begins again. The Slurm jobs of its former life work on: it waits for them,
then gives the same command again, which carries on from what is finished.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from nemoflow import locks, site, squeue, waiting
from nemoflow.errors import report
from nemoflow.files import write_whole
from nemoflow.progress import say

SECONDS_BEFORE_END = 300  # of the time limit, when Slurm sends SIGUSR1
FOLDER = Path(".snakemake/detached")  # one file per job, named by its number: the process
ROUND = 10.0  # seconds between two looks at the queue


def leave_job() -> str:
    """Take Slurm's variables out of the environment; the number of this job.

    Those of this job's one CPU would become those of the jobs that it submits, and the executor
    warns, and loses SLURM_CONF, where it sees them.
    """
    number = os.environ.get("SLURM_JOB_ID", "")
    for name in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
        del os.environ[name]
    return number


def requeue_when_told(number: str) -> None:
    """At SIGUSR1, shortly before the time limit, begin again as the same job."""

    def requeue(*_) -> None:
        say(f"controller: the time limit is near; job {number} begins again")
        subprocess.run(["scontrol", "requeue", number])

    signal.signal(signal.SIGUSR1, requeue)


def forget_dead(controllers: locks.Controllers, mine: str = "") -> None:
    """Take controllers off the list whose Slurm job has ended, or is this one, begun again.

    They may have run on other hosts, where nobody could tell that they are dead: their locks would
    be in the way of the next.
    """
    noted = list(FOLDER.glob("*"))
    if not noted or (jobs := squeue.jobs()) is None:
        return
    alive = {job.number for job in jobs if job.target} - {mine}
    for path in noted:
        if path.name not in alive:
            controllers.forget(path.read_text())
            path.unlink(missing_ok=True)


def wait_for_orphans() -> None:
    """Wait for the jobs of a controller that is gone, but not for one that can never start."""
    watch, told = waiting.Watch(site.load().hopeless_minutes), None
    while orphans := [job for job in squeue.jobs() or [] if job.rule]:
        if told != (told := [job.number for job in orphans]):
            listed = ", ".join(f"{job.number} ({job.state}, {job.title})" for job in orphans)
            say(f"controller: waiting for jobs of an earlier controller: {listed}")
        watch.look(orphans, time.monotonic())
        time.sleep(ROUND)


def run(arguments: list[str], number: str) -> int:
    """Snakemake with some arguments; its exit code.

    At SIGTERM it would wait for its jobs, for days perhaps, and then be killed: that is done at
    once. SIGINT goes to both, and Snakemake cancels its jobs.
    """
    child = subprocess.Popen([sys.executable, "-m", "snakemake", *arguments])
    note = FOLDER / number
    write_whole(note, f"process {child.pid} on {socket.gethostname()}: ")

    def end(*_) -> None:
        child.kill()
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, lambda *_: None)
    code = child.wait()
    note.unlink(missing_ok=True)
    return code


def main() -> int:
    """Run Snakemake with the arguments that were given; its exit code."""
    number = leave_job()
    requeue_when_told(number)
    forget_dead(locks.Controllers(Path(".snakemake")), number)
    wait_for_orphans()
    return run(sys.argv[1:], number)


if __name__ == "__main__":
    report(main)
