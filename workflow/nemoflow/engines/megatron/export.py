"""A Megatron checkpoint as a Hugging Face model folder, by Megatron-Bridge's conversion.

`AutoBridge.export_ckpt` takes names, shards and config from a base model with weights, on the hub.
Ours has a config.json and a tokenizer, written here; so its steps are done one by one, the weights
going into our own shards as they are converted.
"""

import shutil
from pathlib import Path
from typing import Any

from megatron.bridge import AutoBridge
from megatron.bridge.training.model_load_save import temporary_distributed_context

from nemoflow import checkpoint, ranks
from nemoflow.engines import hub_folder
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.torch_dist import check, iteration_folder, run_config

RL_WEIGHTS = Path("policy/weights")  # inside step_N (NeMo-RL, CheckpointManager.get_resume_paths)


def export(job: dict[str, Any]) -> int:
    """Write {progress}/final/: config.json, safetensors, tokenizer files; the exit code.

    The first process works alone, on the CPU: a model of 120B parameters needs 250 GB of memory.

    Raises:
        UserError: the checkpoint is not whole, or has adapters alone; the tokenizer has ids that
            the model has not.
    """
    if ranks.place()[0]:
        return 0
    source = iteration_of(Path(job["inputs"]["checkpoint"]))
    model, dtype, tokenizer = (
        job["config"]["model"],
        job["config"]["dtype"],
        job["inputs"]["tokenizer"],
    )
    progress = Path(job["progress"])
    final, folder = progress / "final", progress / ".final.tmp"
    for leftover in (final, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(tokenizer, folder)
    write_json(folder / "config.json", hub_folder.config_of(model, dtype, tokenizer))
    bridge = AutoBridge.from_hf_pretrained(str(folder))
    with temporary_distributed_context(backend="gloo"):
        loaded = bridge.load_megatron_model(source, wrap_with_ddp=False)
        weights = bridge.export_hf_weights(loaded, cpu=True, show_progress=False)
        hub_folder.write_shards(hub_folder.cast(weights, dtype), folder)
    checkpoint.sync_tree(folder)
    folder.rename(final)
    return 0


def iteration_of(folder: Path) -> Path:
    """The iteration's folder in a published checkpoint: Megatron-Bridge's, or NeMo-RL's.

    Raises:
        UserError: there is none, it is not whole, or it holds adapters alone.
    """
    inside = folder / RL_WEIGHTS
    found = iteration_folder(inside if inside.is_dir() else folder)
    if found is None:
        raise UserError(
            f"{folder}: no Megatron checkpoint in it ({RL_WEIGHTS}/iter_0000000, or"
            " iter_0000100); NeMo-RL must train with its Megatron backend"
        )
    check(found)
    if run_config(found).get("peft"):
        raise UserError(
            f"{found}: adapters without the model they belong to; merge them first"
            " (examples/peft/merge_lora.py of Megatron-Bridge)"
        )
    return found
