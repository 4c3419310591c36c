"""What NeMo-RL would refuse of a step, or pass over: asked before anything is submitted.

Parallel sizes, batches and the judges' GPUs are `nemoflow.world`'s, as for every engine.
"""

from collections.abc import Iterator
from typing import Any

from nemoflow.engines.nemo_rl import gym, releases, settings
from nemoflow.errors import UserError
from nemoflow.machine import Machine

Problem = tuple[str, str]  # (key below the step, what is wrong and what to do)
ROWS = 1 << 40  # as many prompts as asked for: their number is known only when they are built


def problems(told: dict[str, Any], options: dict[str, Any], machine: Machine) -> list[Problem]:
    """What is wrong with a step on a machine; `told` is its spec's identity."""
    found = [*nodes(told, machine), *judges(told, machine)]
    try:
        places = settings.Places("MODEL", "TRAIN", None, ROWS, "WORK")
        settings.of(without_images(told), options, machine, places)
    except UserError as error:
        key, _, text = str(error).partition(": ")
        known = key.partition(".")[0] in told
        found.append((key, text) if known else ("release", str(error)))
    return found


def without_images(told: dict[str, Any]) -> dict[str, Any]:
    """A step without its sandboxes' images: their folder is known where the job runs."""
    agents = {
        name: {k: v for k, v in told["settings"][name].items() if k != "container_formatter"}
        for name in ("swe_agents", *gym.AGENTS)
        if name in told.get("settings", {})
    }
    return {**told, "settings": {**told.get("settings", {}), **agents}}


def nodes(told: dict[str, Any], machine: Machine) -> Iterator[Problem]:
    """The nodes that do not train have something to do, and what needs them has them."""
    if told["algorithm"] == "dpo":
        if machine.generate_nodes or machine.environment_nodes:
            yield "algorithm", "dpo generates nothing; give all nodes of the profile to training"
        if told["parallel"]["context"] > 1:
            text = "NeMo-RL cuts no context without packing, and packs no pairs; set 1"
            yield "parallel.context", text
    elif told.get("asynchronous") and not machine.generate_nodes:
        yield (
            "asynchronous",
            "rollouts that are generated while the model trains need nodes of their own; set"
            " generate_nodes in the profile, or asynchronous: null",
        )


def judges(told: dict[str, Any], machine: Machine) -> Iterator[Problem]:
    """Judges are asked, and fill the nodes kept for them but for a part of the last."""
    asked = told.get("judges", {})
    for name, judge in asked.items():
        for environment in sorted(set(judge["used_by"]) - set(told.get("environments", []))):
            yield f"judges.{name}.used_by", f"{environment} is not among the step's environments"
    total = sum(judge["replicas"] * judge["tensor"] for judge in asked.values())
    kept = machine.environment_nodes * machine.gpus
    if kept - total >= max(machine.gpus, 1):
        yield (
            "judges",
            f"they fill {total} GPUs, environment_nodes of the profile hold {kept}: a whole node"
            " would idle; set environment_nodes lower, or more replicas",
        )
    if machine.environment_nodes and not releases.of(told).serves_judges:
        yield "release", f"{releases.of(told).name} keeps no nodes for judges; choose super-v3"
