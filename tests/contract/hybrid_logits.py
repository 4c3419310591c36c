"""Weights and logits of megatron-core's own HybridModel.

    python hybrid_logits.py FOLDER...

reads model.json (a config's model section) and tokens.safetensors from each FOLDER, and writes
megatron.safetensors (the weights under megatron-core's names) and megatron_logits.safetensors
there. A process of its own, because the model needs megatron-core to find transformer-engine
absent, and Megatron-Bridge needs it present.
"""

import os
import sys
from pathlib import Path

import mamba_reference
import torch
from safetensors.torch import load_file, save_file

from nemoflow.engines.megatron import stubs
from nemoflow.files import read_json


def main() -> None:
    """Build each folder's model, and write its weights and its logits."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # megatron-core compiles its small functions
    stubs.install(["triton"])
    mamba_reference.install()
    import hybrid_model

    hybrid_model.begin("cpu")
    for folder in map(Path, sys.argv[1:]):
        torch.manual_seed(1234)
        with torch.no_grad():
            network = hybrid_model.build(read_json(folder / "model.json"))
            tokens = load_file(folder / "tokens.safetensors")["tokens"]
            outputs = hybrid_model.logits(network, tokens)
        weights = {k: v for k, v in network.state_dict().items() if isinstance(v, torch.Tensor)}
        save_file(weights, folder / "megatron.safetensors")
        save_file(outputs, folder / "megatron_logits.safetensors")


if __name__ == "__main__":
    main()
