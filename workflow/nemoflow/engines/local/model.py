"""NemotronH with what transformers leaves out: the MTP head and balancing without a router loss."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import NemotronHConfig, NemotronHForCausalLM
from transformers.models.nemotron_h.modeling_nemotron_h import (
    NemotronHBlock,
    NemotronHRMSNorm,
    NemotronHTopkRouter,
)

from nemoflow.engines import device
from nemoflow.errors import UserError
from nemoflow.hub import hub_config


class MultiTokenHead(nn.Module):
    """Predicts tokens further ahead: `depths` times the same layers of one pattern, hub names.

    Depth d joins the hidden state that predicted token t+d with the embedding of that token, and
    predicts token t+d+1 through the model's own output layer (DeepSeek-V3, arXiv 2412.19437, 2.2).
    Nemotron 3's depths share their weights (Megatron-Bridge: `mtp_use_repeated_layer`): the first
    layer carries `enorm`, `hnorm` and `eh_proj`, the last `final_layernorm`.
    """

    def __init__(self, config: NemotronHConfig, depths: int):
        super().__init__()
        layers_of_depth = copy.deepcopy(config)
        layers_of_depth.layers_block_type = list(config.mtp_layers_block_type)
        size, epsilon = config.hidden_size, config.layer_norm_epsilon
        self.depths = depths
        self.layers = nn.ModuleList(
            NemotronHBlock(layers_of_depth, index)
            for index in range(len(layers_of_depth.layers_block_type))
        )
        self.layers[0].enorm = NemotronHRMSNorm(size, epsilon)
        self.layers[0].hnorm = NemotronHRMSNorm(size, epsilon)
        self.layers[0].eh_proj = nn.Linear(2 * size, size, bias=False)
        self.layers[-1].final_layernorm = NemotronHRMSNorm(size, epsilon)

    def forward(self, embedded: torch.Tensor, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """The hidden states of each depth in turn.

        `embedded` and `hidden` are [batch, length, hidden_size]: the embeddings and last hidden
        states of the same tokens. Depth d (from 1) yields [batch, length - d, hidden_size].
        """
        first, last = self.layers[0], self.layers[-1]
        for _ in range(self.depths):
            embedded = embedded[:, 1:]
            joined = torch.cat([first.enorm(embedded), first.hnorm(hidden[:, :-1])], -1)
            hidden = first.eh_proj(joined)
            for layer in self.layers:
                hidden = layer(hidden)
            hidden = last.final_layernorm(hidden)
            yield hidden


class NemotronH(NemotronHForCausalLM):
    """transformers' NemotronH for causal language modelling, with `mtp` where the config has it."""

    def __init__(self, config: NemotronHConfig, mtp_depths: int):
        super().__init__(config)
        if mtp_depths:
            self.mtp = MultiTokenHead(config, mtp_depths)
            self.mtp.apply(self._init_weights)


def check_model(model: Mapping[str, Any]) -> None:
    """Raise UserError for a model section that the local engine cannot build."""
    patterns = {"model.pattern": model["pattern"]}
    if model["mtp"]:
        patterns["model.mtp.pattern"] = model["mtp"]["pattern"]
    for key, pattern in patterns.items():
        if strange := sorted(set(pattern) - set("ME*-")):
            raise UserError(f"{key}: {pattern!r} has {strange}; layers are M, E, * and -")
        if "-" in pattern and not model["ffn"]:
            raise UserError(f"model.ffn: the dense layers (-) of {key} {pattern!r} need a width")
    if model["layers"] != len(model["pattern"]):
        raise UserError(
            f"model.layers: {model['layers']}, but model.pattern {model['pattern']!r} has"
            f" {len(model['pattern'])}"
        )
    if model["moe"]["aux_loss"]:
        raise UserError(
            f"model.moe.aux_loss: {model['moe']['aux_loss']}, but the local engine balances experts"
            " by bias alone; set it to 0 and use model.moe.bias_update_rate"
        )


def build(model: Mapping[str, Any], seed: int) -> NemotronH:
    """A model of a config's model section with fresh weights, fp32, that follow from `seed`.

    On the device that `device.choose` names; the weights are drawn on the CPU whichever that is.
    "eager" experts: on a CPU as fast as "grouped_mm", while "batched_mm" is 30 times slower.
    Raises UserError as `check_model` does.
    """
    check_model(model)
    config = NemotronHConfig(**hub_config(model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NemotronH(config, model["mtp"]["depths"] if model["mtp"] else 0)
    network.set_experts_implementation("eager")
    unclamp_time_steps(network)
    return network.to(device.choose())


def unclamp_time_steps(network: nn.Module) -> None:
    """Undo transformers' clamp of Mamba's time step in training.

    Its fallback (5.17 to 5.23) clamps to `time_step_min` in prefill and training but not in
    decoding; Megatron-LM never clamps, and so do we.
    """
    for module in network.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (0.0, float("inf"))


class Losses(NamedTuple):
    """Sums of cross entropy in nats over the tokens that count, and how many those are.

    Of MTP's depths the sums are scaled to the same number of tokens each.
    """

    main: torch.Tensor
    main_tokens: int
    mtp: torch.Tensor
    mtp_tokens: int


def losses(network: NemotronH, tokens: torch.Tensor, mask: torch.Tensor, mtp: bool) -> Losses:
    """Next-token losses of a batch, and those of the MTP head when `mtp`.

    `tokens`: int64 [batch, length + 1]. `mask`: bool [batch, length], whether predicting token
    j + 1 counts. Padding must lie on the right, where causality keeps it without influence. Both
    may lie on another device than the network.
    """
    tokens, mask = tokens.to(network.device), mask.to(network.device)
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    hidden = network.model(input_ids=inputs, use_cache=False).last_hidden_state
    main = cross_entropy(network, hidden, labels, mask)
    further, further_tokens = hidden.new_zeros(()), 0
    if mtp:
        embedded, depths = network.model.embeddings(inputs), []
        for depth, ahead in enumerate(network.mtp(embedded, hidden), start=1):
            left = mask[:, depth:]
            depths.append((cross_entropy(network, ahead, labels[:, depth:], left), int(left.sum())))
        further_tokens = sum(tokens for _, tokens in depths)
        # All depths weigh alike, as in Megatron-LM, though the later ones have fewer tokens.
        for loss, tokens in depths:
            further = further + loss * (further_tokens / (len(depths) * max(tokens, 1)))
    return Losses(main, int(mask.sum()), further, further_tokens)


def cross_entropy(
    network: NemotronH, hidden: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The summed cross entropy at the masked positions; only those go through the output layer."""
    chosen = mask.flatten().nonzero().squeeze(1)
    logits = network.lm_head(hidden.flatten(0, 1).index_select(0, chosen))
    return F.cross_entropy(logits, labels.flatten()[chosen], reduction="sum")


class ExpertBalance:
    """Evens the experts' load by their selection bias, without a loss (arXiv 2408.15664).

    After an update, each router's `e_score_correction_bias` moves by `rate` towards the experts
    that had fewer tokens than the mean. Counts the tokens of all micro-batches in between.
    """

    def __init__(self, network: nn.Module, rate: float):
        self.rate = rate
        self.counts: dict[NemotronHTopkRouter, torch.Tensor] = {}
        for router in network.modules():
            if isinstance(router, NemotronHTopkRouter):
                router.register_forward_hook(self.count)

    def count(self, router: NemotronHTopkRouter, _: Any, outputs: tuple[torch.Tensor, ...]) -> None:
        """Add the tokens of one forward pass; a hook on every router."""
        if router.training:
            chosen = torch.bincount(outputs[2].flatten(), minlength=router.num_experts)
            self.counts[router] = self.counts.get(router, 0) + chosen

    def update(self) -> None:
        """Move the biases by the counts so far, and count anew."""
        for router, counts in self.counts.items():
            load = counts.float()
            router.e_score_correction_bias += self.rate * torch.sign(load.mean() - load)
        self.counts.clear()
