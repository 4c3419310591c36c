"""Megatron's checkpoints without torch: whether all bytes are there, and which tensors they hold.

An iteration's folder of the format torch_dist: `.metadata`, a pickle that says in which file and
where each piece of each tensor lies (torch.distributed.checkpoint.metadata); the pieces,
`__RANK_N.distcp`; `metadata.json`, which names the format; `common.pt`, what all ranks share, or
in its place a `common_state` among the pieces (megatron-core from 0.19 on).
"""

import pickle
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import yaml

from nemoflow.errors import UserError
from nemoflow.files import read_json
from nemoflow.hub import value_at
from nemoflow.shards import Tensor, cut_short, some

TRACKER = "latest_checkpointed_iteration.txt"
ITERATION = re.compile(r"iter_(\d{7})")
ITERATION_GLOB = "iter_[0-9]*"
PARTS = (".metadata", "metadata.json")
COMMON = "common.pt"
# Keys of run_config.yaml's model, which are the fields of Megatron-Bridge's model provider, and of
# the model section.
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "layers",
    "hybrid_layer_pattern": "pattern",
    "ffn_hidden_size": "ffn",
    "layernorm_epsilon": "norm_epsilon",
    "num_attention_heads": "attention.heads",
    "num_query_groups": "attention.kv_heads",
    "kv_channels": "attention.head_dim",
    "mamba_num_heads": "mamba.heads",
    "mamba_head_dim": "mamba.head_dim",
    "mamba_state_dim": "mamba.state",
    "mamba_num_groups": "mamba.groups",
    "num_moe_experts": "moe.experts",
    "moe_router_topk": "moe.experts_per_token",
    "moe_ffn_hidden_size": "moe.ffn",
    "moe_shared_expert_intermediate_size": "moe.shared_ffn",
    "moe_latent_size": "moe.latent",
    "moe_router_topk_scaling_factor": "moe.scaling",
}
OLDER = {"hybrid_override_pattern": "pattern"}  # of older releases
# What reading a damaged pickle, or one of something else, ends in.
BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError
)  # fmt: skip


class Anything:
    """An object of a pickle, whatever its class says: what it was called with, and its state."""

    state: Any = None

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Unpickler(pickle.Unpickler):
    """Reads a pickle without importing or calling anything that it names."""

    def find_class(self, module: str, name: str) -> type[Anything]:
        """A class of that name, for objects and for what torch writes by name alone."""
        return type(name, (Anything,), {})


@dataclass(frozen=True)
class Contents:
    """What `.metadata` tells: the tensors, and the bytes that each file has at least.

    `common` says that what all ranks share is among the pieces.
    """

    tensors: dict[str, Tensor]
    files: dict[str, int]
    common: bool


def read_metadata(path: Path) -> Contents:
    """The contents of a `.metadata`.

    Raises:
        UserError: it is cut short, or something else.
    """
    try:
        with open(path, "rb") as file:
            told = Unpickler(file).load().state
        tensors = {
            name: tensor_of(entry.state)
            for name, entry in told["state_dict_metadata"].items()
            if entry.state and "size" in entry.state
        }
        files: dict[str, int] = {}
        for entry in told["storage_data"].values():
            piece = entry.state
            end = piece["offset"] + piece["length"]
            files[piece["relative_path"]] = max(files.get(piece["relative_path"], 0), end)
    except BROKEN as error:
        raise UserError(
            f"{path}: not readable as torch.distributed writes it ({error}); copy it again"
        ) from None
    common = any(name.startswith("common_state/") for name in told["state_dict_metadata"])
    return Contents(tensors, files, common)


def tensor_of(state: dict[str, Any]) -> Tensor:
    """A tensor of state_dict_metadata; its properties begin with the type."""
    (shape,) = state["size"].arguments
    return Tensor(state["properties"].state[0].__name__, prod(shape))


def iteration_folder(folder: Path) -> Path | None:
    """The newest iteration's folder of a Megatron checkpoint, or `folder` where it is one.

    None where it is no Megatron checkpoint.

    Raises:
        UserError: the tracker names a folder that is not there, or none says which is the newest.
    """
    if (folder / ".metadata").exists() or ITERATION.fullmatch(folder.name):
        return folder
    tracker = folder / TRACKER
    if tracker.exists():
        text = tracker.read_text().strip()
        newest = folder / f"iter_{int(text):07d}" if text.isdecimal() else folder / text
        if not newest.is_dir():
            raise UserError(f"{tracker} says {text!r}, but there is no folder {newest.name}")
        return newest
    if found := sorted(path.name for path in folder.iterdir() if ITERATION.fullmatch(path.name)):
        raise UserError(f"{folder}: no {TRACKER} in it; name one of {some(found)} itself")
    return None


def check(folder: Path) -> Contents:
    """The contents of an iteration's folder once every file is there, and as long as it must be.

    Raises:
        UserError: a file is missing or cut short, or the format is another.
    """
    if missing := [name for name in PARTS if not (folder / name).exists()]:
        raise UserError(f"{folder}: no Megatron checkpoint without {some(missing)}")
    if (backend := backend_of(folder)) != "torch_dist":
        raise UserError(
            f"{folder / 'metadata.json'}: format {backend}; convert it to torch_dist first"
        )
    contents = read_metadata(folder / ".metadata")
    if not contents.common and not (folder / COMMON).exists():
        raise UserError(f"{folder}: no Megatron checkpoint without {COMMON}")
    if missing := sorted(name for name in contents.files if not (folder / name).is_file()):
        raise UserError(f"{folder}: {len(missing)} files of .metadata are missing: {some(missing)}")
    for name, expected in contents.files.items():
        if (size := (folder / name).stat().st_size) < expected:
            raise cut_short(folder / name, size, expected)
    return contents


def backend_of(folder: Path) -> str:
    """The format that metadata.json names."""
    try:
        return str(read_json(folder / "metadata.json")["sharded_backend"])
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{folder / 'metadata.json'}: names no sharded_backend") from None


def run_config(folder: Path) -> dict[str, Any]:
    """The sections of run_config.yaml; empty where Megatron-Bridge did not write one.

    Raises:
        UserError: it is no YAML.
    """
    path = folder / "run_config.yaml"
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    return found if isinstance(found, dict) else {}


def model_config(folder: Path) -> dict[str, Any]:
    """The model of run_config.yaml; empty where there is none."""
    model = run_config(folder).get("model")
    return model if isinstance(model, dict) else {}


def differences(config: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """The keys that run_config.yaml's model and a model section both have and not alike."""
    found = []
    for name, key in (FIELDS | OLDER).items():
        theirs, ours = config.get(name), value_at(model, key)
        if key == "pattern" and isinstance(theirs, str):
            theirs = theirs.partition("/")[0]  # behind it stand the layers of MTP
        if None not in (theirs, ours) and theirs != ours:
            found.append(f"{name}: {theirs}; pretrain.model.{key}: {ours}")
    return found
