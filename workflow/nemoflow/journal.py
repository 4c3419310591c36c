"""What the controllers of a checkout did: which job began, failed, ended, and as what in Slurm.

One file of JSON lines per controller, `.snakemake/journal/{when}-{process}.jsonl`. Snakemake's own
log is no source: `--quiet` leaves jobs out of it. People read the journal; nothing decides by it,
but whether a Slurm job is a living controller's.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoflow import reasons

FOLDER = Path(".snakemake/journal")
KEPT = 10  # files
SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\S+) \(log: (.+)\)")


class Journal(logging.Handler):
    """Writes what Snakemake's logger is told of jobs; see snakemake/jobs.py, `log_info`."""

    def __init__(self, folder: Path = FOLDER):
        super().__init__(logging.INFO)
        self.folder = folder
        self.path = folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.jsonl"
        self.jobs: dict[int, dict[str, Any]] = {}
        self.refused: list[str] = []  # what Slurm said of jobs that it did not take

    def drop_oldest(self) -> None:
        """Keep the newest files only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(self.folder.glob("*.jsonl"))[: -KEPT + 1]:
            old.unlink(missing_ok=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Note one thing that happened, if it is about a job."""
        told = record.__dict__
        event = str(told.get("event") or "")
        if event == "job_info":
            wildcards = {key: str(value) for key, value in (told["wildcards"] or {}).items()}
            outputs = [name.removesuffix(" (temp)") for name in told["output"]]
            logs = list(map(str, told["log"]))
            job = {"rule": told["rule_name"], "wildcards": wildcards, "outputs": outputs}
            self.jobs[told["jobid"]] = job
            self.note("started", told["jobid"], log=logs)
        elif event == "job_error":
            message = str(told["rule_msg"] or "").strip()
            if said := reasons.refusal(message):
                self.refused.append(f"{told['rule_name']}, job {told['jobid']}: {said}")
            message = said or message.partition("\n")[0]
            self.note("failed", told["jobid"], log=list(map(str, told["log"])), message=message)
        elif event == "job_finished":
            self.note("finished", told["job_id"])
        elif found := SUBMITTED.match(str(record.msg)):
            self.note("submitted", int(found[1]), slurm=found[2], log=[found[3]])

    def note(self, event: str, number: int, **facts: Any) -> None:
        """Write a line."""
        now = round(time.time(), 1)
        line = {"event": event, "time": now, **self.jobs.get(number, {}), **facts}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@dataclass
class Known:
    """What the journals tell of a job last; `event` is started, submitted, failed or finished.

    `began` and `time` are when its newest attempt, and the last event, were noted (epoch seconds).
    """

    rule: str
    wildcards: dict[str, str]
    event: str = "started"
    time: float = 0.0
    began: float = 0.0
    message: str = ""
    logs: list[str] = field(default_factory=list)
    slurm: str = ""


def read(folder: Path = FOLDER) -> dict[str, Known]:
    """The last that is known of each job, by its first output."""
    found: dict[str, Known] = {}
    for line in lines(folder):
        output = next(iter(line.get("outputs") or []), None)
        if output is None:
            continue
        known = found.setdefault(output, Known(line["rule"], line["wildcards"]))
        known.event, known.time = line["event"], line["time"]
        if known.event == "started":
            known.message, known.slurm, known.began, known.logs = "", "", known.time, []
        known.logs = list(dict.fromkeys([*known.logs, *line["log"]]))
        known.message = line.get("message", known.message)
        known.slurm = line.get("slurm", known.slurm)
    return found


def submitted(process: int, folder: Path = FOLDER) -> set[str]:
    """The numbers of the Slurm jobs that a controller, a process of this host, has submitted."""
    told = lines(folder, f"*-{process}.jsonl")
    return {line["slurm"] for line in told if line["event"] == "submitted"}


def lines(folder: Path, pattern: str = "*.jsonl") -> Iterator[dict[str, Any]]:
    """The lines of all journals, oldest first; one torn by a kill is left out."""
    for path in sorted(folder.glob(pattern)):
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and {"event", "time"} <= line.keys():
                yield {"log": [], "rule": "", "wildcards": {}, **line}
