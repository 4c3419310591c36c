"""The average of a training's last checkpoints."""

import shutil
from pathlib import Path

import torch

from nemoflow import checkpoint
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.pretrain import Pretraining
from nemoflow.engines.local.weights import load_weights, read_weights, save_weights
from nemoflow.files import read_json, write_json
from nemoflow.hub import hub_config


def merge(job: Job) -> int:
    """Write {progress}/final/, a checkpoint of weights alone, and {progress}/merged.json.

    `config` is the pretraining's. `inputs`: checkpoints, the folders to average in the order of
    their steps, and blend, whose validation windows the last and the merged are compared on; null
    compares nothing. Returns the exit code.
    """
    sources = [Path(source) for source in job.inputs["checkpoints"]]
    states = [read_json(source / "state.json") for source in sources]
    final, folder = job.progress / "final", job.progress / ".final.tmp"
    for leftover in (final, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    folder.mkdir(parents=True)
    save_weights(mean(sources), hub_config(job.config["model"]), folder)
    write_json(
        folder / "state.json", {key: states[-1][key] for key in ("task", "step", "tokens", "model")}
    )
    told = {"steps": [state["step"] for state in states]}
    if job.inputs["blend"]:
        found = [valid_loss(job, source) for source in (sources[-1], folder)]
        if None not in found:
            told["valid_loss"] = dict(zip(("last", "merged"), found, strict=True))
    write_json(job.progress / "merged.json", told)
    checkpoint.sync_tree(folder)
    folder.rename(final)
    return 0


def mean(sources: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of the weights of some checkpoints, in float32."""
    total = {name: tensor.float() for name, tensor in read_weights(sources[0]).items()}
    for source in sources[1:]:
        for name, tensor in read_weights(source).items():
            total[name] += tensor
    return {name: tensor / len(sources) for name, tensor in total.items()}


def valid_loss(job: Job, source: Path) -> float | None:
    """The loss of a checkpoint on the blend's validation windows; None where it has none."""
    trainer = Pretraining(job)
    load_weights(trainer.network, source)
    found = trainer.validate().get("valid_loss")
    return None if found is None else round(found, 6)
