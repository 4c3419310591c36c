"""The weights of a NemotronH checkpoint under the hub's names, in one file or in shards.

transformers drops the MTP head when it writes, so they are written here, as released checkpoints
have them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.shards import INDEX, SINGLE, read_index

ADAPTERS = "adapter_config.json"  # peft's, where a checkpoint holds adapters alone
STACKED = re.compile(r"(.*\.experts)\.(up_proj|down_proj)")
ONE_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(up_proj|down_proj)\.weight")


def to_hub(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's weights on the CPU under the hub's names: `backbone.`, one matrix per expert."""
    weights = {}
    for name, tensor in state.items():
        name, tensor = re.sub(r"^model\.", "backbone.", name), tensor.cpu()
        if stacked := STACKED.fullmatch(name):
            experts, projection = stacked.groups()
            for expert, matrix in enumerate(tensor):
                weights[f"{experts}.{expert}.{projection}.weight"] = matrix.contiguous()
        else:
            weights[name] = tensor.contiguous()
    return weights


def from_hub(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `to_hub`."""
    state, experts = {}, {}
    for name, tensor in weights.items():
        name = re.sub(r"^backbone\.", "model.", name)
        if one := ONE_EXPERT.fullmatch(name):
            stem, expert, projection = one.groups()
            experts.setdefault(f"{stem}.{projection}", {})[int(expert)] = tensor
        else:
            state[name] = tensor
    stacked = {
        name: torch.stack([matrices[expert] for expert in sorted(matrices)])
        for name, matrices in experts.items()
    }
    return state | stacked


def save_weights(
    weights: Mapping[str, torch.Tensor], config: Mapping[str, Any], folder: Path
) -> None:
    """Write model.safetensors (hub names) and config.json into `folder`."""
    save_file(dict(weights), folder / SINGLE, metadata={"format": "pt"})
    write_json(folder / "config.json", config)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in model.safetensors, or in the shards of its index.

    Raises UserError where there are none.
    """
    if (folder / SINGLE).exists():
        return load_file(folder / SINGLE)
    if (folder / ADAPTERS).exists():
        raise UserError(f"{folder}: adapters without their model; start from what was exported")
    if not (folder / INDEX).exists():
        raise UserError(f"{folder}: no {SINGLE}: the local engine reads Hugging Face models alone")
    files = sorted(set(read_index(folder / INDEX).values()))
    return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Load the weights of a checkpoint, an export, or an imported model.

    Raises UserError when they are not those of `model`'s architecture.
    """
    state = from_hub(read_weights(folder))
    own = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if wrong := sorted(
        name for name in shapes | expected if shapes.get(name) != expected.get(name)
    ):
        name = wrong[0]
        raise UserError(
            f"{folder}: {len(wrong)} weights do not fit the config's model section, first {name}:"
            f" {shapes.get(name, 'absent')} in the file, {expected.get(name, 'absent')} by the"
            " config; give this stage the model section of the stage it starts from"
        )
    model.load_state_dict(state)
