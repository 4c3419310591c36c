"""NeMo-RL's config of one step, from our own: every key that decides a result is there.

What our config has no key for comes from the release's file (releases.py).
"""

import math
from dataclasses import dataclass
from typing import Any

from nemoflow.engines.nemo_rl import gym, releases
from nemoflow.errors import UserError
from nemoflow.machine import Machine

PRECISIONS = {"bf16": "bfloat16", "fp32": "float32"}
# What a release does that has no key for it, as all do what is null or false.
WITHOUT_KEY = {
    "grpo.num_val_generations_per_prompt": 1,
    "policy.megatron_cfg.moe_token_dispatcher_type": "alltoall",
}
PENALTY = -5.0  # invalid_tool_call_advantage and malformed_thinking_advantage of the RL YAMLs


@dataclass(frozen=True)
class Places:
    """Where a step reads and writes: absolute paths, since Ray's workers start elsewhere.

    `rows` are the training prompts; `save_by` is DD:HH:MM:SS after which to save and end.
    """

    model: str
    train: str
    validation: str | None
    rows: int
    work: str
    save_by: str | None = None
    nemo_rl: str = "/opt/nemo-rl"


def of(
    told: dict[str, Any], options: dict[str, Any], machine: Machine, places: Places
) -> dict[str, Any]:
    """The whole config of a step: `told` is its spec's identity.

    Raises:
        UserError: the release lacks a key that is asked for, or a setting fits no server.
    """
    release, algorithm = releases.of(told), told["algorithm"]
    config = release.defaults(algorithm)
    parts = policy(told, places) | data(told, release, places) | cluster(machine)
    parts |= checkpointing(options, places) | logger(places)
    if algorithm == "grpo":
        parts |= generation(told, machine) | loss(told) | grpo(told, places)
        parts |= gym.section(told, places.train, places.validation)
        if machine.environment_nodes:
            parts["env.nemo_gym.num_gpu_nodes"] = machine.environment_nodes
    else:
        parts |= dpo(told, places)
    for key, value in releases.flat(parts).items():
        done = value is None or value is False or WITHOUT_KEY.get(key) == value
        if release.knows(key) or not done:
            config[key] = value
    config |= releases.flat(told.get("nemo_rl", {}))
    config |= following(config, told, places)
    release.refuse_unknown(config)
    return releases.nested(config)


def following(config: dict[str, Any], told: dict[str, Any], places: Places) -> dict[str, Any]:
    """Keys that only some releases have, and whose values follow from others."""
    plugin = "policy.generation.vllm_cfg.http_server_serving_chat_kwargs.reasoning_parser_plugin"
    values = {
        plugin: f"{places.nemo_rl}/{config.get(plugin)}",
        "grpo.reward_shaping.max_response_length": told["max_sequence"],
        "loss_fn.force_on_policy_ratio": told.get("minibatches", 1) == 1,
    }
    return {key: value for key, value in values.items() if key in config}


def steps(told: dict[str, Any], rows: int) -> int:
    """The step that ends the training: as many as the epochs or `iterations` say.

    NeMo-RL drops an epoch's last, smaller batch (StatefulDataLoader, drop_last).

    Raises:
        UserError: not even one batch of prompts.
    """
    if rows < told["prompts_per_step"]:
        raise UserError(
            f"prompts_per_step ({told['prompts_per_step']}): there are only {rows} prompts"
        )
    limits = [told.get("iterations"), told["schedule"]["end_iteration"]]
    if told.get("epochs"):
        limits.append(told["epochs"] * (rows // told["prompts_per_step"]))
    return min(limit for limit in limits if limit)


def policy(told: dict[str, Any], places: Places) -> dict[str, Any]:
    """The model that is trained, its optimizer and its parallel sizes."""
    tokens = told["max_sequence"]
    packed = told["algorithm"] == "grpo"  # NeMo-RL packs no pairs (algorithms/dpo.py)
    rollouts = told["prompts_per_step"] * told["generations_per_prompt"]
    rates = {
        "model_name": places.model,
        "tokenizer.name": places.model,
        "train_global_batch_size": rollouts // told.get("minibatches", 1),
        "max_total_sequence_length": tokens,
        "precision": PRECISIONS[told["precision"]],
        "make_sequence_length_divisible_by": told["parallel"]["tensor"],
        "max_grad_norm": told["optimizer"]["clip"],
        "sequence_packing.enabled": packed,
        **({"sequence_packing.train_mb_tokens": tokens} if packed else {}),
        **({"sequence_packing.logprob_mb_tokens": tokens} if packed else {}),
        **({"dynamic_batching.train_mb_tokens": tokens} if packed else {}),
        **({"dynamic_batching.logprob_mb_tokens": tokens} if packed else {}),
    }
    return {f"policy.{k}": v for k, v in rates.items()} | megatron(told)


def megatron(told: dict[str, Any]) -> dict[str, Any]:
    """Megatron's part of the policy."""
    sizes, optimizer, schedule = told["parallel"], told["optimizer"], told["schedule"]
    if schedule["style"] == "wsd":
        raise UserError("schedule.style: NeMo-RL has no wsd; choose constant or cosine")
    decay = None if schedule["style"] == "constant" else schedule["end_iteration"]
    keys = {
        "tensor_model_parallel_size": sizes["tensor"],
        "pipeline_model_parallel_size": sizes["pipeline"],
        "context_parallel_size": sizes["context"],
        "expert_model_parallel_size": sizes["expert"],
        "expert_tensor_parallel_size": sizes["expert_tensor"],
        "sequence_parallel": sizes["sequence"],
        "pipeline_dtype": PRECISIONS[told["precision"]],
        "moe_enable_deepep": sizes["dispatcher"] == "flex",
        "moe_token_dispatcher_type": sizes["dispatcher"],
        "moe_router_bias_update_rate": told["model"]["moe"]["bias_update_rate"],
        "optimizer.lr": schedule["peak"],
        "optimizer.min_lr": schedule["floor"],
        "optimizer.weight_decay": optimizer["weight_decay"],
        "optimizer.bf16": told["precision"] == "bf16",
        "optimizer.adam_beta1": optimizer["beta1"],
        "optimizer.adam_beta2": optimizer["beta2"],
        "optimizer.adam_eps": optimizer["epsilon"],
        "optimizer.clip_grad": optimizer["clip"],
        "scheduler.start_weight_decay": optimizer["weight_decay"],
        "scheduler.end_weight_decay": optimizer["weight_decay"],
        "scheduler.lr_decay_style": schedule["style"],
        "scheduler.lr_warmup_iters": schedule["warmup_iterations"],
        "scheduler.lr_warmup_init": schedule.get("warmup_from", 0.0),
    }
    if told["algorithm"] == "grpo" or decay:  # dpo.py doubles every key with iters: no null
        keys["scheduler.lr_decay_iters"] = decay
    return {f"policy.megatron_cfg.{key}": value for key, value in keys.items()}


def generation(told: dict[str, Any], machine: Machine) -> dict[str, Any]:
    """vLLM, beside the training on the same GPUs or on nodes of its own."""
    engine, apart = told["generation"], machine.generate_nodes > 0
    keys = {
        "max_new_tokens": engine["max_new_tokens"],
        "temperature": engine["temperature"],
        "top_p": engine["top_p"],
        "vllm_cfg.async_engine": True,  # NeMo-Gym needs it (grpo.py, _should_use_nemo_gym)
        "vllm_cfg.expose_http_server": True,
        "vllm_cfg.precision": PRECISIONS[told["precision"]],
        "vllm_cfg.tensor_parallel_size": engine["tensor"],
        "vllm_cfg.gpu_memory_utilization": engine["memory"],
        "vllm_cfg.max_model_len": told["max_sequence"],
        "colocated.enabled": not apart,
        "colocated.resources.gpus_per_node": machine.gpus if apart else None,
        "colocated.resources.num_nodes": machine.generate_nodes if apart else None,
    }
    if "prefix_caching" in engine:
        keys["vllm_cfg.enable_prefix_caching"] = engine["prefix_caching"]
    if "enable_thinking" in told.get("settings", {}).get("chat_template_kwargs", {}):
        thinking = told["settings"]["chat_template_kwargs"]["enable_thinking"]
        keys["vllm_cfg.enable_thinking"] = thinking
    return {f"policy.generation.{key}": value for key, value in keys.items()}


def loss(told: dict[str, Any]) -> dict[str, Any]:
    """The clipped policy gradient."""
    return {
        "loss_fn.reference_policy_kl_penalty": told["kl"],
        "loss_fn.ratio_clip_min": told["clip_low"],
        "loss_fn.ratio_clip_max": told["clip_high"],
        "loss_fn.truncated_importance_sampling_ratio": told.get("truncated_importance"),
    }


def grpo(told: dict[str, Any], places: Places) -> dict[str, Any]:
    """Batches, their number, and what becomes of rewards."""
    bound, validate = told.get("advantage_clip"), told.get("validate")
    calls, after = told.get("invalid_tool_calls"), told.get("asynchronous")
    thinking, last = told.get("malformed_thinking") is not None, steps(told, places.rows)
    keys = {
        "num_prompts_per_step": told["prompts_per_step"],
        "num_generations_per_prompt": told["generations_per_prompt"],
        "num_val_generations_per_prompt": validate["generations"] if validate else 1,
        "max_num_epochs": told.get("epochs") or last,
        "max_num_steps": last,
        "advantage_clip_low": -bound if bound else None,
        "advantage_clip_high": bound,
        "val_period": validate["every"] if validate else -1,
        "overlong_filtering": told["overlong_filter"],
        "seed": told["seed"],
        "penalize_invalid_tool_call": calls is not None,
        "invalid_tool_call_advantage": PENALTY if calls else None,
        "invalid_tool_call_strategy": calls if calls == "mask" else None,
        "penalize_malformed_thinking": thinking,
        "malformed_thinking_advantage": PENALTY if thinking else None,
        "async_grpo.enabled": after is not None,
        "async_grpo.max_trajectory_age_steps": after["max_age"] if after else 1,
        "async_grpo.in_flight_weight_updates": bool(after and after["in_flight_updates"]),
    }
    return {f"grpo.{key}": value for key, value in keys.items()}


def dpo(told: dict[str, Any], places: Places) -> dict[str, Any]:
    """Direct preference optimization."""
    validate, weights = told.get("validate"), told.get("settings", {})
    last = steps(told, places.rows)
    keys = {
        "max_num_epochs": told.get("epochs") or last,
        "max_num_steps": last,
        "val_period": validate["every"] if validate else 0,
        "val_global_batch_size": told["prompts_per_step"],
        "seed": told["seed"],
        "reference_policy_kl_penalty": told["beta"],
        **weights,
    }
    return {f"dpo.{key}": value for key, value in keys.items()}


def data(told: dict[str, Any], release: releases.Release, places: Places) -> dict[str, Any]:
    """The files of prompts or pairs, as the release names them.

    A step whose rollouts are asynchronous reads its prompts once (`_collection_loop` of
    async_utils.py) and waits for ever when they are used up, or when rollouts under way were lost
    with a killed job: so the file is repeated for the epochs and once more; `max_num_steps` ends
    the training.
    """
    pairs = told["algorithm"] == "dpo"
    after = told.get("asynchronous") is not None
    if release.knows("data.train.data_path"):
        keys = {
            "data.default.dataset_name": "PreferenceDataset" if pairs else "NemoGymDataset",
            "data.train.data_path": places.train,
            "data.max_input_seq_length": None,
        }
        if places.validation:
            keys["data.validation.data_path"] = places.validation
        if after:
            used = steps(told, places.rows) * told["prompts_per_step"]
            keys["data.train.repeat"] = math.ceil(used / places.rows) + 1
    elif after:
        raise UserError(
            f"asynchronous: NeMo-RL {release.name} ends no asynchronous step by itself; choose"
            f" release: {releases.DEFAULT}"
        )
    elif pairs:
        keys = {"data.dataset_name": "PreferenceDataset", "data.train_data_path": places.train}
        if places.validation:
            keys["data.val_data_path"] = places.validation
    else:
        keys = {
            "data.train_jsonl_fpath": places.train,
            "data.validation_jsonl_fpath": places.validation or places.train,
        }
    if pairs:
        keys |= {"data.max_input_seq_length": told["max_sequence"], "data.shuffle": True}
    return keys


def cluster(machine: Machine) -> dict[str, Any]:
    """All nodes, those that generate and serve among them."""
    return {"cluster.num_nodes": machine.nodes, "cluster.gpus_per_node": machine.gpus}


def checkpointing(options: dict[str, Any], places: Places) -> dict[str, Any]:
    """The newest few are kept, whatever they score: the last one is the product."""
    return {
        "checkpointing.enabled": True,
        "checkpointing.checkpoint_dir": places.work,
        "checkpointing.metric_name": None,
        "checkpointing.keep_top_k": options["keep"],
        "checkpointing.save_period": options["save_every"],
        "checkpointing.checkpoint_must_save_by": places.save_by,
    }


def logger(places: Places) -> dict[str, Any]:
    """TensorBoard's files alone, which the curve is read from; no account of any service."""
    off = ("wandb_enabled", "mlflow_enabled", "swanlab_enabled", "monitor_gpus")
    return {
        "logger.log_dir": f"{places.work}/logs",
        "logger.tensorboard_enabled": True,
        **{f"logger.{name}": False for name in off},
    }
