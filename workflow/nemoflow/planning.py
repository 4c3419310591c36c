"""What a target would build, in words: a dry run of Snakemake, and the specs before and after."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow import manifest, provenance, specs
from nemoflow.config import Config
from nemoflow.config.base import Strict
from nemoflow.config.checks import difference
from nemoflow.config.run import Phase, Step
from nemoflow.errors import UserError
from nemoflow.files import read_json

FOLLOWS = "Input files updated by another job"


@dataclass(frozen=True)
class Job:
    """A job of a dry run."""

    rule: str
    outputs: list[str]
    reason: str
    wildcards: dict[str, str]


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
    told = dict(re.findall(r"^    (output|reason|wildcards): (.*)$", text, flags=re.M))
    pairs = [pair.split("=", 1) for pair in told.get("wildcards", "").split(", ") if pair]
    outputs = [name.removesuffix(" (temp)") for name in told["output"].split(", ")]
    return Job(rule, outputs, told.get("reason", ""), dict(pairs))


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


def fields_of(model: type[Strict]) -> set[str]:
    """The keys of a model as the YAML names them."""
    return {field.alias or name for name, field in model.model_fields.items()}


ENTRIES = {"pretrain": ("phases", "phase", Phase), "rl": ("steps", "step", Step)}
PLACES = {
    "tokenizer": "tokenizers.{tokenizer}",
    "plan": "corpora.{corpus}",
    "tokens": "corpora.{corpus}",
    "corpus": "corpora.{corpus}",
    "render": "mixtures.{mixture}.sources.{source}",
    "pack": "mixtures.{mixture}",
    "sft": "sft",
    "resolve": "prompts.{prompts}",
    "export": "export",
    "eval_task": "eval",
    "eval": "eval",
}
ELSEWHERE = {
    ("tokens", "dtype"): "tokenizers.{tokenizer}.dtype",
    ("corpus", "dtype"): "tokenizers.{tokenizer}.dtype",
    ("render", "template"): "mixtures.{mixture}.template",
    ("export", "engine"): "{section}.engine",
}


def dotted(job: Job, config: Config, key: tuple[str, ...]) -> str:
    """The config key that a key of a job's identity comes from."""
    named, first = job.wildcards, key[0]
    if first == "version":
        return f"version of stage {job.rule}"
    if place := ELSEWHERE.get((job.rule, first)):
        return place.format(**named, section=named.get("stage", "").partition(".")[0])
    if first == "model":
        return ".".join(("pretrain", *key))
    if job.rule in ENTRIES:
        entries, entry, model = ENTRIES[job.rule]
        inside = (entries, named[entry]) if first in fields_of(model) else ()
        return ".".join((job.rule, *inside, *key))
    if job.rule == "blend":
        blend = config.run(named["run"]).pretrain.phases[named["phase"]].blend
        return ".".join(("blends", blend, *key))
    if job.rule == "pack" and first == "weights":
        return ".".join(("mixtures", named["mixture"], "sources", *key[1:], "weight"))
    if job.rule == "eval_task" and first == "task":
        return ".".join(("tasks", named["task"], *key[1:]))
    return ".".join((PLACES[job.rule].format(**named), *key))


def at(values: Any, key: tuple[str, ...]) -> str:
    """The value at a key, for people; long text is cut."""
    for name in key:
        values = values.get(name) if isinstance(values, dict) else None
    text = "unset" if values is None else str(values)
    return text if len(text) <= 60 else f"{text[:57]}…"


def changes(job: Job, config: Config, before: dict[str, Any]) -> list[str]:
    """The changed keys of a job's spec, old and new value."""
    if not before.get("identity") or job.rule == "report":
        return []
    now = specs.of(config, job.rule, job.wildcards).identity
    return [
        f"{dotted(job, config, key)}: {at(before['identity'], key)} → {at(now, key)}"
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
    seconds = sum(before.get("built", {}).get("seconds", 0) for _, before in known)
    yield f"{len(jobs)} jobs" + (
        f"; those built before took {seconds:.0f} s in all" if seconds else ""
    )
