"""AdamW with the recipes' grouping and clipping; a guard keeps a bad update out."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nemoflow.divergence import SpikeGuard


class Optimizer:
    """AdamW over a model's trainable parameters; weight decay on matrices only.

    `config`: beta1, beta2, epsilon, weight_decay, clip (the largest gradient norm, 0 = any).
    """

    def __init__(self, network: nn.Module, config: Mapping[str, Any], guard: SpikeGuard):
        self.clip, self.guard = config["clip"] or math.inf, guard
        self.named = {n: p for n, p in network.named_parameters() if p.requires_grad}
        matrices = [p for p in self.named.values() if p.ndim >= 2]
        vectors = [p for p in self.named.values() if p.ndim < 2]
        self.adamw = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config["weight_decay"]},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=(config["beta1"], config["beta2"]),
            eps=config["epsilon"],
            fused=True,
        )

    def update(self, loss: float, rate: float) -> float:
        """Clip and apply the gradients of `loss` at learning rate `rate`; the gradient's norm.

        Raises Diverged, with the weights untouched, when they must not be applied.
        """
        norm = float(nn.utils.clip_grad_norm_(self.named.values(), self.clip))
        self.guard.check(loss, norm)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        """Moments and update counts on the CPU, named `{exp_avg|exp_avg_sq|step}/{parameter}`."""
        return {
            f"{key}/{name}": value.cpu()
            for name, parameter in self.named.items()
            for key, value in self.adamw.state[parameter].items()
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state` gave; parameters it does not know start afresh."""
        for entry, value in state.items():
            key, name = entry.split("/", 1)
            if name in self.named:
                parameter = self.named[name]
                self.adamw.state[parameter][key] = value.to(parameter.device)
