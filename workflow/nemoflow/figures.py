"""How far a job is and what it took: from progress/, manifests and the records of builds."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow import manifest, spec, squeue
from nemoflow.attempts import Attempts
from nemoflow.files import read_json
from nemoflow.provenance import BUILDS

TAIL = 65536  # bytes at the end of a log, or of metrics.jsonl
RECENT = 50  # logged steps that the speed is taken from


@dataclass
class Figures:
    """What is known in numbers; `left` and `seconds` are times, `gpus` those of all nodes."""

    step: int | None = None
    total: int | None = None
    loss: float | None = None
    reward: float | None = None
    tokens_per_second: float | None = None
    left: float | None = None
    seconds: float | None = None
    gpus: int = 0
    gpu_hours: float = 0.0
    attempts: int = 0

    def run_on(self, job: squeue.Job) -> None:
        """Count the time of a running job that keeps no count itself."""
        self.gpus = job.gpus or self.gpus
        if not self.attempts:
            self.seconds = elapsed(job.elapsed)
        self.gpu_hours = (self.seconds or 0.0) * self.gpus / 3600


def of_product(path: Path) -> Figures:
    """What a finished product took."""
    built = facts(BUILDS / f"{path}.json").get("built", {})
    found = Figures()
    if path.exists() and built:
        found.seconds, found.gpus = built.get("seconds"), built.get("gpus", 0)
        found.gpu_hours = (found.seconds or 0.0) * found.gpus / 3600
        found.attempts = built.get("attempts", 0)
    return found


def of_training(path: Path) -> Figures:
    """How far training is, or was; in a clone without progress/, what manifest and curve tell."""
    found, progress = of_product(path), manifest.payload(path).with_name("progress")
    job = facts(progress / "job.json")
    config, machine = job.get("config", {}), job.get("machine") or {}
    found.total = spec.last_step(config)
    lines = metrics(progress / "metrics.jsonl")
    if path.exists():
        found.step = facts(path).get("step")
        last = lines[-1] if lines else last_row(path.with_name("curve.csv"))
    else:
        last = lines[-1] if lines else {}
        found.step = last.get("step")
        found.left = left(lines, found.total)
        count(found, progress, machine.get("nodes", 1) * machine.get("gpus", 0))
    found.loss, found.reward = last.get("loss"), last.get("reward")
    found.tokens_per_second = last.get("tokens_per_second")
    return found


def count(found: Figures, progress: Path, gpus: int) -> None:
    """Add what the attempts so far have taken."""
    try:
        attempts = Attempts.of(progress)
    except (OSError, ValueError, TypeError):  # just being written, or moved away
        return
    if attempts.count:
        found.attempts, found.seconds, found.gpus = attempts.count, attempts.spent, gpus
        found.gpu_hours = attempts.spent * gpus / 3600


def left(lines: list[dict[str, Any]], total: int | None) -> float | None:
    """The seconds that the steps left will take at the speed of the last ones."""
    recent = lines[-RECENT:]
    if not total or len(recent) < 2 or not all("seconds" in line for line in recent):
        return None
    steps = recent[-1]["step"] - recent[0]["step"]
    seconds = recent[-1]["seconds"] - recent[0]["seconds"]
    if steps <= 0 or seconds < 0:
        return None
    return max(0, total - recent[-1]["step"]) * seconds / steps


def metrics(path: Path) -> list[dict[str, Any]]:
    """The last lines of a metrics file; torn ones are left out."""
    found = []
    for text in tail(path).splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found


def last_row(path: Path) -> dict[str, Any]:
    """The last row of a curve, as numbers."""
    try:
        rows = list(csv.DictReader(path.read_text().splitlines()))
        return {key: float(value) for key, value in rows[-1].items() if value}
    except (OSError, ValueError, IndexError):
        return {}


def tail(path: Path) -> bytes:
    """The end of a file; nothing where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return file.read()
    except OSError:
        return b""


def facts(path: Path) -> dict[str, Any]:
    """What a JSON file tells; nothing where it is missing or half-written."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def elapsed(text: str) -> float | None:
    """Slurm's [days-][hours:]minutes:seconds in seconds."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
