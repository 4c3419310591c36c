"""Slurm's commands as scripts on PATH: the queue is a file, what they are asked is noted."""

import os
from pathlib import Path

from nemoflow.squeue import LETTERS, Job

FIELDS = tuple(Job.__dataclass_fields__)
RUNNING = {
    "number": "1", "state": "RUNNING", "reason": "None", "partition": "gpu", "nodes": "2",
    "processors": "16", "memory": "64G", "resources": "gres:gpu:8", "limit": "4:00:00",
    "elapsed": "1:30:00", "start": "N/A", "comment": "rule_sft_wildcards_micro", "folder": "",
}  # fmt: skip


class SmallSlurm:
    """squeue, sbatch, scancel, scontrol, sinfo and sacctmgr of one test."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder = folder / "slurm"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", f"{self.folder}{os.pathsep}{os.environ['PATH']}")
        self.queue()
        self.script("squeue", f"cat {self.folder}/queue")
        self.script(
            "sbatch", f"cat > {self.folder}/script; env > {self.folder}/environment; echo 77"
        )
        for name in ("scancel", "scontrol", "sacctmgr"):
            self.script(name, "true")
        self.script(
            "sinfo", "test $3 = --format=%R && printf 'gpu\\ncpu\\n' || echo 'gpu*|infinite'"
        )

    def script(self, name: str, text: str) -> None:
        """Make a command that writes down its arguments and then does `text`."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {self.folder}/{name}.asked\n{text}\n')
        path.chmod(0o755)

    def queue(self, *jobs: dict[str, str]) -> None:
        """Let these jobs, `RUNNING` with other values each, be in the queue of the folder."""
        told = [{**RUNNING, "folder": os.getcwd(), **job} for job in jobs]
        lines = ["|".join(job[field] for field in FIELDS) for job in told]
        (self.folder / "queue").write_text("".join(f"{line}\n" for line in lines))

    def asked(self, name: str) -> list[str]:
        """The arguments that a command got last; none where it was not called."""
        path = self.folder / f"{name}.asked"
        return path.read_text().splitlines() if path.exists() else []


def job(**values: str) -> Job:
    """A job in the queue."""
    return Job(**{**RUNNING, **values})


assert len(LETTERS) == len(FIELDS)
