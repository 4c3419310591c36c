"""Jobs of the recipes, and their containers, for tests against Megatron-Bridge."""

from pathlib import Path
from typing import Any

from megatron.bridge.training.config import ConfigContainer

from nemoflow import specs
from nemoflow.config import Config
from nemoflow.engines.megatron import validate

CONFIG = Config(Path(__file__).parents[2] / "config")
NODES = {"super3": 128, "nano3": 128, "super3-smoke": 1}
TARGETS = ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2", "in_proj", "out_proj"]
LORA = {"rank": 16, "alpha": 32, "dropout": 0.05, "targets": TARGETS}


def asked(run: str, stage: str, nodes: int = 0, gpu: str = "b200", **changes: Any) -> dict:
    """A stage as `validate` is asked about it; `changes` by dotted key, __ for the dots."""
    rule, _, phase = stage.partition(" ")[0].partition(".")
    config, _ = specs.SPECS[rule](CONFIG, run=run, **({"phase": phase} if phase else {}))
    if "adapters" in stage:
        config["lora"] = LORA
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = config
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    machine = {"nodes": nodes or NODES[run], "gpus": 8, "threads": 1}
    return {
        "key": stage.partition(" ")[0],
        "task": rule,
        "config": config,
        "machine": machine,
        "gpu": gpu,
    }


def container(tmp_path: Path, told: dict) -> ConfigContainer:
    """The validated container of a job."""
    return validate.validated(validate.stand_in_job(told, tmp_path), told)
