"""What the local engine makes of a model folder of Hugging Face, held against the folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from nemoflow.engines import parity
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.model import build
from nemoflow.engines.local.weights import load_weights, to_hub
from nemoflow.files import write_json


def examine(folder: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """The round trip of a folder and its logits beside those of plain transformers, in float32.

    `model` is the config's section. Raises UserError when the folder is of another model, or does
    not come back as it was.
    """
    network = build(model, 0).eval()
    load_weights(network, folder)
    weights = to_hub(network.state_dict()).items()
    found = parity.round_trip(folder, parity.in_types_of(folder, weights))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = parity.probe(model["vocab_size"]).to(network.device)
    with torch.no_grad():
        ours, theirs = network(tokens).logits, plain.to(network.device)(tokens).logits
    return found | {"logits": parity.logits(ours, theirs)}


def take(job: Job) -> int:
    """Make an imported model what training starts from, the same files; the exit code.

    Leaves {progress}/final/ and {progress}/parity.json. `config`: model. `inputs`: model, the
    job's own copy.
    """
    folder = Path(job.inputs["model"])
    found = examine(folder, job.config["model"])
    write_json(job.progress / "parity.json", parity.verdict(found))
    folder.rename(job.progress / "final")
    return 0
