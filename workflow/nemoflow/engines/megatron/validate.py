"""Check jobs against Megatron-Bridge's own classes, before any of them is submitted.

`python -m nemoflow.engines.megatron.validate` reads a JSON list of {key, task, config, machine,
gpu} and prints a list of {key, problems: [{key, message}]}. `config` is the identity of a job's
spec, the outer `key` its stage (`pretrain.phase1`, `sft`), the inner one the key to change. Neither
data nor checkpoints nor a GPU need be there: stand-ins take their place.
"""

import gc
import json
import os
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nemoflow.engines.megatron import settings, stubs
from nemoflow.errors import UserError, report
from nemoflow.files import write_json

OPTIONS = {"log_every": 10, "save_every": 200}
GPU = "b200"  # where the kind is not told (null): it has every precision
REFUSALS = (AssertionError, ValueError, TypeError, RuntimeError, NotImplementedError)
# What Megatron-Bridge says of a fault without naming the field, or among others.
PHRASES = {
    "world size (": "parallel",
    "eval_global_batch_size": "batch.global",
    "micro batch size should be 1": "batch.micro",
    "num_layers (": "model.layers",
    "failed to load configuration": "model.pattern",
    "sequence length must": "batch.sequence",
    "deepep": "parallel.dispatcher",
    "fp4": "precision",
    "fp8": "precision",
}


def main() -> None:
    """Read the jobs, check each, print what was found."""
    jobs = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        if jobs:
            stubs.stand_in(jobs[0]["gpu"] or GPU, jobs[0]["machine"]["gpus"])
            import_module("nemoflow.engines.megatron.recipe")  # what fails here is no job's fault
        found = [{"key": job["key"], "problems": problems(job)} for job in jobs]
    json.dump(found, sys.stdout)


def problems(asked: Mapping[str, Any]) -> list[dict[str, str]]:
    """What keeps a job from running: the first thing that our settings or its checks refuse."""
    with TemporaryDirectory() as folder:
        job = stand_in_job(asked, Path(folder))
        try:
            told = settings.settings(job, asked["gpu"] or GPU)
            validated(job, asked)
        except UserError as error:
            key, _, message = str(error).partition(": ")
            return [{"key": full(job, key), "message": message or key}]
        except REFUSALS as error:
            message = " ".join(str(error).split()) or f"{type(error).__name__} without a message"
            return [{"key": full(job, blamed(message, told)), "message": message}]
    return []


def validated(job: Mapping[str, Any], asked: Mapping[str, Any]) -> Any:
    """The container of a job, as Megatron-Bridge leaves it when its own checks have passed."""
    machine = asked["machine"]
    aside = machine.get("generate_nodes", 0) + machine.get("environment_nodes", 0)
    os.environ["WORLD_SIZE"] = str((machine["nodes"] - aside) * machine["gpus"])
    stubs.stand_in(asked["gpu"] or GPU, machine["gpus"])
    from megatron.bridge.training.config import runtime_config_update

    from nemoflow.engines.megatron import recipe

    with warnings.catch_warnings(action="ignore"):
        container = recipe.build(job)
        runtime_config_update(container)
    return container


def stand_in_job(asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A job.json with inputs that exist: one shard, one file of rows, one checkpoint."""
    init, tokenizer = folder / "init", folder / "tokenizer"
    for empty in (init, tokenizer, folder / "packed/train", folder / "packed/valid"):
        empty.mkdir(parents=True)
    inputs = {"tokenizer": str(tokenizer)}
    config = asked["config"]
    if asked["task"] == "sft":
        for split in ("train", "valid"):
            (folder / "packed" / split / "rows.parquet").touch()
        inputs |= {"data": str(folder / "packed"), "init": str(init)}
    else:
        blend = {split: ["1.0", str(folder / split)] for split in ("train", "valid", "test")}
        write_json(folder / "blend.json", blend)
        inputs |= {"blend": str(folder / "blend.json")}
        inputs |= {"init": str(init)} if config["init"] != "random" else {}
    return {
        "task": asked["task"],
        "title": asked["key"],
        "config": config,
        "options": OPTIONS,
        "seed": config.get("seed", 0),
        "inputs": inputs,
        "progress": str(folder / "progress"),
    }


def blamed(message: str, told: settings.Settings) -> str:
    """The key of ours that a message of Megatron-Bridge is about, as far as it can be told.

    Of several, a parallel size: it is changed more easily than the model that it does not divide.
    """
    lower = message.lower()
    for phrase, key in PHRASES.items():
        if phrase in lower:
            return key
    words = set(re.findall(r"\w+", message))
    named = {s.key for field, s in told.items() if s.key and field.rpartition(".")[2] in words}
    return min(named, key=lambda key: (not key.startswith("parallel."), key), default="")


def full(job: Mapping[str, Any], key: str) -> str:
    """A key of the spec's identity as the run's file has it; the stage's where there is none."""
    if not re.fullmatch(r"[\w.]+", key):
        return settings.config_key(job, "parallel").removesuffix(".parallel")
    top = key.partition(".")[0]
    known = {*job["config"], "tokenizer", "mixture", "blend", "options"}
    return settings.config_key(job, key) if top in known else key


if __name__ == "__main__":
    gc.disable()  # a fifth of the time to import Megatron-Bridge
    os.environ["HF_HUB_OFFLINE"] = "1"
    stubs.install()
    report(main)
