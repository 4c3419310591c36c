"""Whether a run's parallel sizes fit the nodes that a profile gives to each stage."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nemoflow import graph
from nemoflow.config import Config, yaml12
from nemoflow.config.load import Runs
from nemoflow.config.run import Run
from nemoflow.errors import UserError

GPUS = {"b200": {"fp32", "bf16", "fp8", "nvfp4"}, "h100": {"fp32", "bf16", "fp8"}}


def resources(profile: Path, rule: str, wildcards: dict[str, str]) -> dict[str, Any]:
    """What a profile gives to a job of a rule; expressions evaluated as Snakemake does."""
    path = profile / "config.yaml"
    if not path.exists():
        raise UserError(f"{profile}: no config.yaml there; profiles: profiles/local, b200, h100")
    values, _ = yaml12.read(path)
    given = {**values.get("default-resources", {}), **values.get("set-resources", {}).get(rule, {})}
    evaluated = {}
    for key, value in given.items():
        if isinstance(value, str) and "wildcards." in value:
            value = evaluated_for(value, wildcards, f"{path}: set-resources.{rule}.{key}")
        evaluated[key] = value
    return evaluated


def evaluated_for(expression: str, wildcards: dict[str, str], where: str) -> Any:
    """A profile's expression for one job.

    Raises:
        UserError: it is no expression, or names something else than the job's wildcards.
    """
    try:
        return eval(expression, {"__builtins__": {}}, {"wildcards": SimpleNamespace(**wildcards)})
    except (SyntaxError, NameError, AttributeError, TypeError) as error:
        known = ", ".join(f"wildcards.{name}" for name in wildcards)
        raise UserError(f"{where}: {expression!r}: {error}; known here: {known}") from None


def gpus(given: dict[str, Any]) -> int:
    """GPUs that train: nodes × GPUs per node, without those that generate or judge."""
    per_node = str(given.get("gres", "gpu:0")).rsplit(":", 1)[-1]
    aside = given.get("generate_nodes", 0) + given.get("environment_nodes", 0)
    return (given.get("nodes", 1) - aside) * int(per_node)


def check(config: Config, name: str, run: Run, profile: Path) -> Iterator[str]:
    """One line per GPU stage: its world and how it is cut.

    Raises:
        UserError: the world is no multiple of the model's, the batch of the data-parallel size, or
            the GPUs lack a precision.
    """
    for stage in graph.stages(Runs(config), name):
        section, _, part = stage.partition(".")
        settings = getattr(run, section)
        if settings.engine == "local":
            continue
        key = {"pretrain": "phase", "rl": "step"}.get(section)
        given = resources(profile, section, {"run": name, **({key: part} if key else {})})
        entry = settings if section == "sft" else graph.entry(run, stage)
        yield f"{stage}: " + fits(config, name, stage, entry, gpus(given))
        known = GPUS.get(profile.name)
        if known and settings.precision not in known:
            place = config.place("runs", name, section, "precision")
            raise UserError(
                f"{place}: {section}.precision: {profile.name} GPUs have no {settings.precision};"
                f" set {section}.precision to one of {', '.join(sorted(known))}"
            )


def fits(config: Config, name: str, stage: str, entry: Any, world: int) -> str:
    """How a stage's world is cut, in words."""
    cut, section = entry.parallel, stage.partition(".")[0]
    model = cut.tensor * cut.pipeline * cut.context
    experts = cut.expert * cut.expert_tensor * cut.pipeline
    place = config.place("runs", name, *stage.split("."), "parallel")
    if not world:
        raise UserError(f"{place}: {stage}: the profile gives rule {section} no GPUs (gres)")
    for size, word in ((model, "tensor × pipeline × context"), (experts, "expert × pipeline")):
        if world % size:
            raise UserError(
                f"{place}: {stage}: {word} = {size} does not divide the profile's {world} GPUs;"
                f" change the parallel sizes, or nodes of rule {section} in the profile"
            )
    data = world // model
    if (batch := getattr(entry, "batch", None)) and batch.global_size % (batch.micro * data):
        raise UserError(
            f"{place}: {stage}: batch.global {batch.global_size} is no multiple of micro"
            f" {batch.micro} × {data} data-parallel ranks ({world} GPUs / {model})"
        )
    return (
        f"{world} GPUs = {data} data-parallel × {model} (tensor {cut.tensor}, pipeline"
        f" {cut.pipeline}, context {cut.context}), experts over {experts}"
    )
