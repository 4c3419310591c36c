"""What a target would build, in words: a dry run of Snakemake, and the specs before and after."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow import forecast, manifest, provenance, scores, specs
from nemoflow.config import Config
from nemoflow.config.checks import difference
from nemoflow.errors import UserError
from nemoflow.files import read_json
from nemoflow.keys import dotted, shown, value_at

FOLLOWS = "Input files updated by another job"


@dataclass(frozen=True)
class Job:
    """A job of a dry run."""

    rule: str
    outputs: list[str]
    reason: str
    wildcards: dict[str, str]
    inputs: tuple[str, ...] = ()


def dry_run(targets: list[str], profile: str, overrides: str | None) -> list[Job]:
    """The jobs that Snakemake would run for some targets.

    Raises:
        UserError: what Snakemake says when it cannot plan them.
    """
    command = [sys.executable, "-m", "snakemake", "--profile", profile, "--dry-run", *targets]
    if overrides:
        command += ["--config", f"set={overrides}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError((done.stderr or done.stdout).strip().removeprefix("error: "))
    blocks = re.split(r"^(?:local)?(?:rule|checkpoint) (\w+):$", done.stdout, flags=re.M)[1:]
    return [parsed(rule, text) for rule, text in zip(blocks[::2], blocks[1::2], strict=True)]


def parsed(rule: str, text: str) -> Job:
    """A job from the block that Snakemake prints about it."""
    told = dict(re.findall(r"^    (input|output|reason|wildcards): (.*)$", text, flags=re.M))
    pairs = [pair.split("=", 1) for pair in told.get("wildcards", "").split(", ") if pair]
    outputs, inputs = (
        [name.removesuffix(" (temp)") for name in told.get(key, "").split(", ") if name]
        for key in ("output", "input")
    )
    return Job(rule, outputs, told.get("reason", ""), dict(pairs), tuple(inputs))


def former(job: Job) -> dict[str, Any]:
    """What is known of a job's finished product: its identity, and when it was built."""
    output = Path(job.outputs[0])
    told = provenance.BUILDS / f"{output}.json"
    known = read_json(told) if told.exists() else {}
    for path in (output, manifest.last(output)):
        if path.suffix != ".html" and path.exists():
            content = read_json(path)
            return {**known, "identity": content.get("identity", known.get("identity")), "at": path}
    return {}


def changes(job: Job, config: Config, before: dict[str, Any]) -> list[str]:
    """The changed keys of a job's spec, old and new value."""
    if not before.get("identity") or job.rule == "report":
        return []
    now, named = specs.of(config, job.rule, job.wildcards).identity, job.wildcards
    if job.rule == "blend":
        named = {**named, "blend": config.run(named["run"]).pretrain.phases[named["phase"]].blend}
    return [
        f"{dotted(job.rule, named, key)}: {shown(value_at(before['identity'], key))}"
        f" → {shown(value_at(now, key))}"
        for key in difference(before["identity"], now)
    ]


def why(job: Job, config: Config, before: dict[str, Any]) -> list[str]:
    """The reasons of a job that are its own; none when it only follows another."""
    if found := changes(job, config, before):
        return found
    if not before:
        return ["not built yet"] if "Missing output files" in job.reason else []
    own = [part for part in job.reason.split("; ") if not part.startswith(FOLLOWS)]
    return [part.replace("Updated input files", "changed input") for part in own if part]


def replaced(before: dict[str, Any]) -> str:
    """What a job's new product takes the place of."""
    built = before.get("built")
    if not built:
        return f"replaces {before['at']}"
    return (
        f"replaces the one built {built['started'][:16].replace('T', ' ')} on {built['host']},"
        f" which took {built['seconds']:.0f} s"
    )


def published(config: Config, job: Job) -> Iterator[str]:
    """What the scores of an eval.json will be held against."""
    if lines := scores.expected(specs.of(config, job.rule, job.wildcards).identity):
        yield f"{job.outputs[0]} will be held against published scores"
        yield from (f"    {line}" for line in lines)


def plan(config: Config, targets: list[str], profile: str, overrides: str | None) -> Iterator[str]:
    """What would be built and why, what follows from that, what it replaces, and what it cost."""
    jobs = dry_run(targets, profile, overrides)
    if not jobs:
        yield "nothing to do: everything is built, from just this config"
        return
    known = [(job, former(job)) for job in jobs]
    causes = [(job, before, why(job, config, before)) for job, before in known]
    fresh = Counter(job.rule for job, before, _ in causes if not before)
    for job, before, reasons in causes:
        if before and reasons:
            yield f"{job.rule}  {job.outputs[0]}"
            yield from (f"    because {reason}" for reason in reasons)
            yield f"    {replaced(before)}"
    for job, before, reasons in causes:
        if before and not reasons:
            yield f"{job.rule}  {job.outputs[0]}"
            yield f"    because its inputs are rebuilt; {replaced(before)}"
    if fresh:
        counts = ", ".join(f"{count} {rule}" for rule, count in fresh.items())
        yield f"not built yet: {counts}"
    for job in jobs:
        if job.rule == "eval":
            yield from published(config, job)
    yield from forecast.costs(config, [(job.rule, job.wildcards) for job in jobs], profile)
    seconds = sum(before.get("built", {}).get("seconds", 0) for _, before in known)
    yield f"{len(jobs)} jobs" + (
        f"; those built before took {seconds:.0f} s in all" if seconds else ""
    )
