"""The Slurm jobs of this checkout: one call of squeue for all who ask."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nemoflow.allocation import GPUS, ask
from nemoflow.errors import UserError

# Slurm's letters, in the order of the fields of `Job`; the folder last, it may hold anything.
LETTERS = ["i", "T", "r", "P", "D", "C", "m", "b", "l", "M", "S", "k", "Z"]
CONTROLLER = "nemoflow:"  # begins the comment of a detached controller's job


@dataclass(frozen=True)
class Job:
    """A job in the queue, in squeue's own words.

    `elapsed` is [days-]hours:minutes:seconds, `start` when a waiting job is expected to start.
    """

    number: str
    state: str
    reason: str
    partition: str
    nodes: str
    processors: str
    memory: str
    resources: str
    limit: str
    elapsed: str
    start: str
    comment: str
    folder: str

    @property
    def waits(self) -> bool:
        """Whether it has not started."""
        return self.state == "PENDING"

    @property
    def gpus(self) -> int:
        """The GPUs of all its nodes."""
        found = GPUS.search(self.resources)
        return int(self.nodes) * int(found[1] or 1) if self.nodes.isdigit() and found else 0

    @property
    def asks(self) -> str:
        """What it asks for, in words."""
        gpus = GPUS.search(self.resources)
        per_node = f" with {gpus[1] or 1} GPUs each" if gpus else ""
        nodes = f"{self.nodes} node" + ("s" if self.nodes != "1" else "")
        return (
            f"{nodes}{per_node}, {self.processors} CPUs, {self.memory} memory, {self.limit} of time"
        )

    @property
    def rule(self) -> str:
        """The rule whose job it is; "" for another's."""
        found = re.match(r"(?:rule|group)_(.+?)(?:_wildcards_|$)", self.comment)
        return found[1] if found else ""

    @property
    def title(self) -> str:
        """Rule and wildcards for people."""
        return re.sub(r"^(rule|group)_", "", self.comment).replace("_wildcards_", " ")

    @property
    def target(self) -> str:
        """What a detached controller builds; "" for another's job."""
        own = self.comment.startswith(CONTROLLER)
        return self.comment.removeprefix(CONTROLLER) if own else ""


def jobs() -> list[Job] | None:
    """My jobs that wait or run and work in this folder; None where Slurm is not, or is silent."""
    letters = "|".join(f"%{letter}" for letter in LETTERS)
    try:
        told = ask("squeue", "--me", "--noheader", f"--format={letters}")
    except UserError:
        return None
    lines = [line.split("|", len(LETTERS) - 1) for line in told.splitlines()]
    here = os.path.realpath(os.getcwd())
    found = [Job(*line) for line in lines if len(line) == len(LETTERS)]
    return [job for job in found if here == os.path.realpath(job.folder)]


def log_of(job: Job) -> Path | None:
    """Where Slurm writes what a rule's job prints (the Slurm executor's `Executor.run_job`)."""
    found = re.match(r"((?:rule|group)_.+?)(?:_wildcards_(.*))?$", job.comment)
    if found is None:
        return None
    return Path(".snakemake/slurm_logs") / found[1] / (found[2] or "") / f"{job.number}.log"
