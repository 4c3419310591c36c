"""Logits of the local engine's model, for a checkpoint in the hub's names.

    python local_logits.py FOLDER...

reads model.json, model.safetensors and tokens.safetensors from each FOLDER, and writes
local_logits.safetensors there. Run by the main environment's Python.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from nemoflow.engines.local.model import NemotronH, build
from nemoflow.engines.local.weights import load_weights
from nemoflow.files import read_json


def logits(network: NemotronH, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits of the model (`main`) and of each depth (`mtp1`, ...: one position shorter each)."""
    hidden = network.model(input_ids=tokens, use_cache=False).last_hidden_state
    outputs = {"main": network.lm_head(hidden)}
    if hasattr(network, "mtp"):
        depths = network.mtp(network.model.embeddings(tokens), hidden)
        for depth, ahead in enumerate(depths, start=1):
            outputs[f"mtp{depth}"] = network.lm_head(ahead)
    return outputs


def main() -> None:
    """Load each folder's checkpoint and write its logits."""
    for folder in map(Path, sys.argv[1:]):
        network = build(read_json(folder / "model.json"), seed=0).eval()
        load_weights(network, folder)
        with torch.no_grad():
            outputs = logits(network, load_file(folder / "tokens.safetensors")["tokens"])
        save_file(outputs, folder / "local_logits.safetensors")


if __name__ == "__main__":
    main()
