"""Checkpoints of other people, a few hundred bytes each, for imports: headers and data by hand."""

import json
import struct
import warnings
from pathlib import Path

import torch
from torch.distributed import checkpoint

from nemoflow.hub import hub_config

MODEL = {
    "pattern": "M*E",
    "layers": 3,
    "hidden_size": 8,
    "vocab_size": 16,
    "max_positions": 32,
    "init_std": 0.02,
    "norm_epsilon": 1e-5,
    "attention": {"heads": 2, "kv_heads": 1, "head_dim": 4},
    "mamba": {"heads": 2, "head_dim": 4, "state": 4, "groups": 1, "conv": 4, "chunk": 8},
    "moe": {"experts": 2, "experts_per_token": 1, "ffn": 8, "shared_ffn": 8, "scaling": 1.0},
}  # as a spec has it: what is not set is left out
SIZES = {"F32": 4, "BF16": 2, "I64": 8}
SHARDS = {
    "model-00001-of-00002.safetensors": {"backbone.embeddings.weight": ("BF16", [16, 8])},
    "model-00002-of-00002.safetensors": {"lm_head.weight": ("BF16", [16, 8]), "b": ("F32", [2])},
}


def safetensors(path: Path, tensors: dict) -> None:
    """Write a file of {name: (type, shape)}, its data zero."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        size = SIZES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(end))


def huggingface(folder: Path, files: dict | None = None, **config) -> Path:
    """A Hugging Face model, sharded if `files` are several."""
    files = files or SHARDS
    folder.mkdir(parents=True)
    for name, tensors in files.items():
        safetensors(folder / name, tensors)
    if len(files) > 1:
        places = {tensor: name for name, tensors in files.items() for tensor in tensors}
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    told = hub_config({"ffn": None, "mtp": None, **MODEL}, "bfloat16")
    told |= {"transformers_version": "4.55.4"}
    (folder / "config.json").write_text(json.dumps(told | config))
    return folder


def megatron(folder: Path, model: str = "{hidden_size: 8, num_layers: 3}") -> Path:
    """A Megatron checkpoint of iteration 100, as torch.distributed writes it, and a stale one."""
    iteration = folder / "iter_0000100"
    tensors = {
        "decoder.layers.0.weight": torch.zeros(4, 8, dtype=torch.bfloat16),
        "optimizer.state.exp_avg.decoder.layers.0.weight": torch.zeros(4, 8),
        "rng_state": b"bytes",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is one process
        checkpoint.save(tensors, checkpoint_id=str(iteration), no_dist=True)
    (iteration / "common.pt").write_bytes(b"common")
    told = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}
    (iteration / "metadata.json").write_text(json.dumps(told))
    (iteration / "run_config.yaml").write_text(f"model: {model}\n")
    (folder / "iter_0000050").mkdir()
    (folder / "latest_checkpointed_iteration.txt").write_text("100")
    return folder
