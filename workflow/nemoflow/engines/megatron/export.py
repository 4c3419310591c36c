"""A Megatron checkpoint as a Hugging Face model folder, by Megatron-Bridge's conversion.

`AutoBridge.export_ckpt` takes names, shards and config from a base model with weights, on the hub.
Ours has a config.json and a tokenizer, written here; so its steps are done one by one, the weights
going into our own shards as they are converted. Adapters are merged as they go, as
`examples/peft/merge_lora.py` of Megatron-Bridge does.
"""

import dataclasses
import gc
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.bridge.peft.lora import LoRA
from megatron.bridge.training import checkpointing
from megatron.bridge.training.model_load_save import temporary_distributed_context
from megatron.core import dist_checkpointing

from nemoflow import checkpoint, ranks
from nemoflow.engines import hub_folder, parity
from nemoflow.engines.megatron import conversion
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.torch_dist import check, iteration_folder, run_config

RL_WEIGHTS = Path("policy/weights")  # inside step_N (NeMo-RL, CheckpointManager.get_resume_paths)


def export(job: dict[str, Any]) -> int:
    """Write {progress}/final/ (config.json, safetensors, tokenizer files) and parity.json.

    The first process works alone, on the CPU. With `config.lora` the checkpoint holds adapters,
    and `inputs.base` is what they were trained on. Returns the exit code.

    Raises:
        UserError: the checkpoint is not whole, or has adapters that nothing is said of; the
            tokenizer has ids that the model has not; the weights do not come back as they went.
    """
    if ranks.place()[0]:
        return 0
    config, tokenizer, progress = job["config"], job["inputs"]["tokenizer"], Path(job["progress"])
    final, folder = progress / "final", progress / ".final.tmp"
    for leftover in (final, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(tokenizer, folder)
    told = hub_folder.config_of(config["model"], config["dtype"], tokenizer)
    write_json(folder / "config.json", told)
    with temporary_distributed_context(backend="gloo"):
        found = write_weights(config, job["inputs"], folder)
    write_json(progress / "parity.json", parity.verdict(found))
    checkpoint.sync_tree(folder)
    folder.rename(final)
    return 0


def write_weights(
    config: Mapping[str, Any], inputs: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Convert into a folder that has its config.json; what is found of the way back."""
    lora, dtype = config.get("lora"), config["dtype"]
    source = iteration_of(Path(inputs["checkpoint"]), adapters=bool(lora))
    bridge = conversion.bridge_of(folder)
    base = iteration_of(Path(inputs["base"])) if lora else source
    model = bridge.load_megatron_model(base, wrap_with_ddp=False)
    if lora:
        add_adapters(model, lora, source)
    weights = conversion.exported(bridge, model)
    hub_folder.write_shards(hub_folder.cast(weights, dtype), folder)
    adapted = conversion.answer(model, folder) if lora else None
    del model
    gc.collect()
    model = conversion.loaded(bridge, folder)
    found = conversion.examine(bridge, model, folder)
    if adapted is not None:
        merged = conversion.answer(model, folder)
        found["adapters"] = parity.adapters(adapted, merged, dtype)
    return found


def iteration_of(folder: Path, adapters: bool = False) -> Path:
    """The iteration's folder in a published checkpoint: Megatron-Bridge's, or NeMo-RL's.

    Raises:
        UserError: there is none, it is not whole, or it holds `adapters` alone against what is
            said, or the other way round.
    """
    inside = folder / RL_WEIGHTS
    found = iteration_folder(inside if inside.is_dir() else folder)
    if found is None:
        raise UserError(
            f"{folder}: no Megatron checkpoint in it ({RL_WEIGHTS}/iter_0000000, or"
            " iter_0000100); NeMo-RL must train with its Megatron backend"
        )
    check(found)
    has_adapters = bool(run_config(found).get("peft"))
    if has_adapters and not adapters:
        raise UserError(
            f"{found}: adapters without the model they belong to; set sft.lora as they were"
            " trained, or merge them first (examples/peft/merge_lora.py of Megatron-Bridge)"
        )
    if adapters and not has_adapters:
        raise UserError(f"{found}: no adapters in it, but sft.lora is set; set it to null")
    return found


def add_adapters(model: conversion.Model, lora: Mapping[str, Any], iteration: Path) -> None:
    """Put the adapters of a checkpoint around a base model's layers.

    Their shape is what the checkpoint's run_config.yaml says, and what our keys say before that.
    """
    known = {field.name for field in dataclasses.fields(LoRA) if field.init}
    told = {k: v for k, v in run_config(iteration)["peft"].items() if k in known}
    told |= {"dim": lora["rank"], "alpha": lora["alpha"], "dropout": lora["dropout"]}
    scheme = LoRA(**told | {"target_modules": list(lora["targets"])})
    scheme(model, training=False)
    wanted = checkpointing._generate_model_state_dict(model, {})
    wanted = checkpointing.apply_peft_adapter_filter_to_state_dict(wanted, scheme)
    found = dist_checkpointing.load(wanted, str(iteration))
    model[0].load_state_dict(found["model"], strict=False)
