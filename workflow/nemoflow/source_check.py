"""What can be said of a run's sources before anything is built, and without a network."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from nemoflow import graph
from nemoflow.config import Config, derived
from nemoflow.config.load import Runs
from nemoflow.config.source import Source


def notes(config: Config, name: str) -> Iterator[str]:
    """What a run will ask of the hub, which local files are not here, which package is missing."""
    used = dict(sources(config, name))
    hubs = {source.hub for source in used.values() if source.hub}
    if hubs:
        token = "" if os.environ.get("HF_TOKEN") else "; without HF_TOKEN gated ones are refused"
        yield f"{name}: rows of {len(hubs)} data sets of the hub, each pinned to a commit{token}"
    for place, source in used.items():
        if source.local and not _is_here(source.local):
            yield f"{place}: local {source.local}: no such file or folder yet"
        if source.url and (package := _missing(source.url)):
            yield f"{place}: url {source.url}: pip install {package}"


def sources(config: Config, name: str) -> Iterator[tuple[str, Source]]:
    """(config file and key, source) of what the stages of a run read."""
    runs = Runs(config)
    run, stages = runs[name], graph.stages(runs, name)
    phases = [phase for phase in run.pretrain.phases if f"pretrain.{phase}" in stages]
    corpora = {corpus for phase in phases for corpus in derived.weights(config, run, phase)}
    for corpus in sorted(corpora):
        if source := config.data("corpora", corpus).source:
            yield f"config/corpora/{corpus}.yaml", source
    if "sft" in stages:
        for key, part in config.data("mixtures", run.sft.mixture).sources.items():
            yield f"config/mixtures/{run.sft.mixture}.yaml: sources.{key}", part.source
    for step, entry in run.rl.steps.items():
        if f"rl.{step}" in stages:
            yield from prompt_sources(config, entry.prompts)


def prompt_sources(config: Config, name: str) -> Iterator[tuple[str, Source]]:
    """The same of a set of prompts: its rows, the sets they stand for, items to keep apart from."""
    rows = config.data("prompts", name)
    for number, source in enumerate([*rows.sources, *(rows.validation or [])]):
        yield f"config/prompts/{name}.yaml: source {number}", source
    for key, external in rows.external.items():
        yield f"config/prompts/{name}.yaml: external.{key}", external.source
    for task in rows.apart_from:
        if items := config.data("tasks", task).items:
            yield f"config/tasks/{task}.yaml: items", items.source


def _is_here(pattern: str) -> bool:
    fixed = pattern.split("*")[0].rpartition("/")[0] if "*" in pattern else pattern
    return Path(fixed or ".").exists()


def _missing(url: str) -> str | None:
    """The package that fsspec lacks to read an address."""
    from fsspec.registry import known_implementations

    told = known_implementations.get(url.split("://")[0], {"class": "fsspec.none"})
    package = told["class"].split(".")[0]
    return None if importlib.util.find_spec(package) else package
