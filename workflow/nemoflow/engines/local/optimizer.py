"""AdamW with the recipes' grouping, clipping, and the guard that keeps a bad update out."""

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import nn

RECENT = 50
ENOUGH = 10


class Diverged(Exception):
    """Training must stop: the loss or its gradient is not finite, or the loss spiked."""

    def __init__(self, reason: str, loss: float):
        super().__init__(reason)
        self.reason, self.loss = reason, loss


class SpikeGuard:
    """Knows the last 50 losses and refuses one above `factor` times their median.

    `factor` None refuses only what is not finite. Ten losses are enough to judge by.
    """

    def __init__(self, factor: float | None):
        self.factor = factor
        self.recent: list[float] = []

    def check(self, loss: float, norm: float) -> None:
        """Raise Diverged for a loss or gradient norm that must not reach the weights."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(f"loss {loss} and gradient norm {norm}: not finite", loss)
        if self.factor and len(self.recent) >= ENOUGH and loss > self.factor * median(self.recent):
            raise Diverged(
                f"loss {loss:.4g} is over {self.factor} times the median of the last"
                f" {len(self.recent)} ({median(self.recent):.4g})",
                loss,
            )
        self.recent = [*self.recent, loss][-RECENT:]


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
        """Moments and update counts, named `{exp_avg|exp_avg_sq|step}/{parameter}`."""
        return {
            f"{key}/{name}": value
            for name, parameter in self.named.items()
            for key, value in self.adamw.state[parameter].items()
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state` gave; parameters it does not know start afresh."""
        for entry, value in state.items():
            key, name = entry.split("/", 1)
            if name in self.named:
                self.adamw.state[self.named[name]][key] = value
