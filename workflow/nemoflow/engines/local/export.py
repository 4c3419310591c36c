"""A checkpoint as a Hugging Face model folder, which lm-eval, vLLM and Megatron-Bridge read."""

import shutil
from pathlib import Path
from typing import Any

import torch

from nemoflow import checkpoint
from nemoflow.engines import hub_folder, parity
from nemoflow.engines.local import adapters
from nemoflow.engines.local.conversion import examine
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.model import build
from nemoflow.engines.local.weights import load_weights, read_weights, save_weights, to_hub
from nemoflow.files import write_json


def export(job: Job) -> int:
    """Write {progress}/final/ (config.json, model.safetensors, tokenizer files) and parity.json.

    `config`: dtype, model, and lora where the checkpoint holds adapters. `inputs`: the folders
    checkpoint and tokenizer, and base, which adapters are merged into. Returns the exit code.
    Raises UserError when the tokenizer has ids that the model has not.
    """
    source, dtype, model = Path(job.inputs["checkpoint"]), job.config["dtype"], job.config["model"]
    config = hub_folder.config_of(model, dtype, job.inputs["tokenizer"])
    weights, found = merged(job) if job.config.get("lora") else (read_weights(source), {})
    weights = dict(hub_folder.cast(weights.items(), dtype))
    final, folder = job.progress / "final", job.progress / ".final.tmp"
    for leftover in (final, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(job.inputs["tokenizer"], folder)
    save_weights(weights, config, folder)
    write_json(job.progress / "parity.json", parity.verdict(examine(folder, model) | found))
    checkpoint.sync_tree(folder)
    folder.rename(final)
    return 0


@torch.no_grad()
def merged(job: Job) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights of base and adapters in one, and how alike the logits of the two are.

    They are merged in float32, and compared in float64: what is seen is what merging rounds.
    """
    model = job.config["model"]
    network = build(model, 0).eval()
    load_weights(network, Path(job.inputs["base"]))
    tuner = adapters.insert(network, job.config["lora"], 0)
    adapters.load(network, Path(job.inputs["checkpoint"]))
    tokens = parity.probe(model["vocab_size"]).to(network.device)
    adapted = network.double()(tokens).logits
    network.float()
    tuner.merge_and_unload()
    weights = {name: tensor.clone() for name, tensor in to_hub(network.state_dict()).items()}
    found = parity.adapters(adapted, network.double()(tokens).logits, "float32")
    return weights, {"adapters": found}
