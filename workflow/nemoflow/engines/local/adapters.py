"""Low-rank adapters by peft: fine-tuning that leaves the model it starts from as it is.

They sit in the backbone; embeddings, norms, routers, output layer and the whole MTP head are
frozen. Query, key and value have an adapter each, and so has every expert.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear, LoraModel
from safetensors.torch import load_file, save_file
from torch import nn

from nemoflow.engines.local.weights import ADAPTERS
from nemoflow.errors import UserError
from nemoflow.files import write_json

# The projections of transformers in what Megatron's layers of these names hold.
PROJECTIONS = {
    "linear_qkv": ("q_proj", "k_proj", "v_proj"),
    "linear_proj": ("o_proj",),
    "linear_fc1": ("up_proj",),
    "linear_fc2": ("down_proj",),
    "in_proj": ("in_proj",),
    "out_proj": ("out_proj",),
}
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's, in its files


class Adapted(LoraModel):
    """peft's adapters around the layers of a network, which is changed in place."""

    def _check_target_module_compatiblity(self, *_: Any) -> None:
        """Allow Mamba's out_proj.

        peft refuses it because fused kernels go past it to its weight; the local engine has none.
        """


def insert(network: nn.Module, lora: Mapping[str, Any], seed: int) -> Adapted:
    """Freeze a network and put adapters in, which change nothing yet; drawn on the CPU from `seed`.

    `lora`: rank, alpha, dropout, targets. Raises UserError where it has what cannot be.
    """
    config = settings(network, lora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Adapted(network, config, "default")


def settings(network: nn.Module, lora: Mapping[str, Any]) -> LoraConfig:
    """The settings of peft for a network that has no adapters yet."""
    if lora["dropout"]:
        raise UserError(
            f"sft.lora.dropout: {lora['dropout']}, but peft's adapters of experts have none; set 0"
        )
    wanted = {name for target in lora["targets"] for name in PROJECTIONS[target]}
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    stacked = [name for name, weight in network.named_parameters() if weight.ndim == 3]
    chosen = [
        sorted(n for n in names if n.startswith("model.") and n.rpartition(".")[2] in wanted)
        for names in (linear, stacked)
    ]
    if not any(chosen):
        raise UserError(f"sft.lora.targets: {lora['targets']}: the model has no such layer")
    return LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        target_modules=chosen[0],
        target_parameters=chosen[1] or None,
    )


def share(network: nn.Module) -> str:
    """In words, how many of the parameters are trained."""
    every = [p.numel() for p in network.parameters()]
    trained = [p.numel() for p in network.parameters() if p.requires_grad]
    return (
        f"LoRA: {sum(trained):,} of {sum(every):,} parameters are trained"
        f" ({sum(trained) / sum(every):.1%}); the MTP head is not"
    )


def named(network: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' weights by their names in peft's files."""
    return {
        PREFIX + name.replace(".default.", "."): weight
        for name, weight in network.named_parameters()
        if ".lora_" in name
    }


def save(network: nn.Module, folder: Path) -> None:
    """Write the adapters alone, in the files that peft reads."""
    weights = {name: weight.detach().cpu() for name, weight in named(network).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    made = network.peft_config["default"]
    told = {key: getattr(made, key) for key in ("r", "lora_alpha", "target_parameters")}
    linear = [name for name, module in network.named_modules() if isinstance(module, Linear)]
    told |= {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": linear}
    write_json(folder / ADAPTERS, told)


def load(network: nn.Module, folder: Path) -> None:
    """Load what `save` wrote into a network with adapters.

    Raises UserError when the folder has none, or others.
    """
    if not (folder / WEIGHTS).exists():
        raise UserError(f"{folder}: no adapters ({WEIGHTS}); this run's sft has lora settings")
    found, own = load_file(folder / WEIGHTS), named(network)
    if wrong := sorted(
        name
        for name in found | own
        if name not in found or name not in own or found[name].shape != own[name].shape
    ):
        raise UserError(
            f"{folder}: {len(wrong)} adapters do not fit sft.lora and the model, first {wrong[0]};"
            " give the settings that they were trained with"
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(found[name])
