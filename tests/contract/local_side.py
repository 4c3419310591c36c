"""The local engine's model doing one training step, told in the hub's names.

    python local_side.py FOLDER...

reads model.json, model.safetensors, tokens.safetensors and, where a step is asked for,
optimizer.json from each FOLDER. It writes local.safetensors (see `forward` and `step`) and
again.safetensors (the weights, as the model gives them back) there. Run by the main environment's
Python.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHTopkRouter

from nemoflow.divergence import SpikeGuard
from nemoflow.engines.local.model import ExpertBalance, NemotronH, build, losses
from nemoflow.engines.local.optimizer import Optimizer
from nemoflow.engines.local.weights import load_weights, to_hub
from nemoflow.files import read_json

Tensors = dict[str, torch.Tensor]


def forward(network: NemotronH, tokens: torch.Tensor) -> Tensors:
    """Logits of the model (`main`) and of each depth (`mtp1`, ...: one position shorter each)."""
    hidden = network.model(input_ids=tokens, use_cache=False).last_hidden_state
    outputs = {"logits/main": network.lm_head(hidden)}
    if hasattr(network, "mtp"):
        depths = network.mtp(network.model.embeddings(tokens), hidden)
        for depth, ahead in enumerate(depths, start=1):
            outputs[f"logits/mtp{depth}"] = network.lm_head(ahead)
    return outputs


def watch(network: NemotronH, batch: int) -> Tensors:
    """What each router chooses from now on, by call: experts in order [batch, length, top k]."""
    chosen: Tensors = {}

    def watch_one(gate: str, router: NemotronHTopkRouter) -> None:
        calls: list[int] = []

        def note(_: Any, inputs: tuple, outputs: tuple) -> None:
            indices = outputs[2].sort(-1).values
            chosen[f"choices/{gate}/{len(calls)}"] = indices.unflatten(0, (batch, -1))
            calls.append(1)

        router.register_forward_hook(note)

    for name, router in network.named_modules():
        if isinstance(router, NemotronHTopkRouter):
            watch_one(name.replace("model.", "backbone.", 1), router)
    return chosen


def step(network: NemotronH, model: dict, tokens: torch.Tensor, told: dict) -> Tensors:
    """One training step: choices, losses, gradients and norm, and the updated weights."""
    network.train()
    optimizer = Optimizer(network, told, SpikeGuard(None))
    balance = ExpertBalance(network, model["moe"]["bias_update_rate"])
    chosen, mtp = watch(network, len(tokens)), model["mtp"]
    mask = torch.ones(len(tokens), tokens.shape[1] - 1, dtype=torch.bool)
    sums = losses(network, tokens, mask, mtp=bool(mtp))
    loss = main = sums.main / sums.main_tokens
    made = {"loss/main": main.detach()}
    if mtp:
        ahead = sums.mtp / sums.mtp_tokens
        made["loss/mtp"] = ahead.detach()
        loss = loss + mtp["loss_scale"] * ahead
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    made |= chosen | {f"gradients/{k}": v.clone() for k, v in to_hub(gradients).items()}
    made["norm"] = torch.tensor(optimizer.update(float(main.detach()), told["rate"]))
    balance.update()
    return made | {f"updated/{k}": v for k, v in to_hub(network.state_dict()).items()}


def main() -> None:
    """Load each folder's checkpoint and write what it computes."""
    for folder in map(Path, sys.argv[1:]):
        model = read_json(folder / "model.json")
        network = build(model, seed=0).eval()
        load_weights(network, folder)
        save_file(to_hub(network.state_dict()), folder / "again.safetensors")
        tokens = load_file(folder / "tokens.safetensors")["tokens"]
        with torch.no_grad():
            made = forward(network, tokens[:, :-1])
        if (folder / "optimizer.json").exists():
            made |= step(network, model, tokens, read_json(folder / "optimizer.json"))
        save_file({k: v.contiguous() for k, v in made.items()}, folder / "local.safetensors")


if __name__ == "__main__":
    main()
