"""A job in the words of Megatron-Bridge's ConfigContainer, for every release; without torch.

Each field is told by its dotted name in release 0.6.2, with the key of ours that it comes from.
A field without a key is one that no key of ours says: the recipe functions differ in it, by
release or for the benchmarks they were measured with. `recipe` leaves it out where a release has
no such field; any other field must be there. Text that begins with "torch." is a torch.dtype.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nemoflow import keys
from nemoflow.engines.megatron import architecture, data
from nemoflow.errors import UserError

# By kind of GPU: the mixed-precision recipe, by the name that Megatron-Bridge registers. Hopper has
# no MXFP8 and no NVFP4; there FP8 is scaled per tensor, the first and last two layers in BF16.
PRECISIONS = {
    "a100": {"bf16": "bf16_mixed"},
    "h100": {"bf16": "bf16_mixed", "fp8": "nemotron_h_bf16_with_fp8_current_scaling_mixed"},
    "b200": {
        "bf16": "bf16_mixed",
        "fp8": "bf16_with_mxfp8_mixed",
        "nvfp4": "bf16_with_nvfp4_mixed",
    },
}
BF16_SHARE = 0.15  # of the layers, at the end: report of Super, section on NVFP4
STYLES = {"wsd": "WSD", "constant": "constant", "cosine": "cosine"}
WEIGHTS = ("weights", "merged")  # of which nothing but the weights is taken
TRACKERS = ("latest_train_state.pt", "latest_checkpointed_iteration.txt")


class Setting(NamedTuple):
    """A field's value, and the key of the spec's identity that says it."""

    value: Any
    key: str | None = None


Settings = dict[str, Setting]


def settings(job: Mapping[str, Any], gpu: str) -> Settings:
    """Every field that a job sets, by dotted name.

    Args:
        job: a job.json of task pretrain or sft, or one of `validate`.
        gpu: the kind of the GPUs, a key of `PRECISIONS`.

    Raises:
        UserError: the GPUs lack the precision; a key of `megatron` is ours already; a file of the
            job's inputs is not there.
    """
    config = job["config"]
    made: Settings = {}
    for part in (
        architecture.fields(config["model"]),
        precision(config, gpu),
        parallel(config["parallel"]),
        batch(config["batch"]),
        schedule(config),
        optimizer(config["optimizer"]),
        validation(config["validate"]),
        data.fields(job),
        checkpoints(job),
        running(job),
        adapters(config.get("lora")),
    ):
        made |= {field: Setting(*told) for field, told in part}
    return made | further(config.get("megatron") or {}, made)


def config_key(job: Mapping[str, Any], key: str) -> str:
    """The dotted key of the run's file that a key of the spec's identity comes from."""
    rule, _, phase = job.get("title", job["task"]).partition(".")
    return keys.dotted(rule, {"phase": phase}, tuple(key.split(".")))


def precision(config: Mapping[str, Any], gpu: str) -> Iterator[tuple[str, tuple]]:
    """The mixed-precision recipe; gradients and optimizer state in FP32, as branch super-v3."""
    wanted, known = config["precision"], PRECISIONS.get(gpu)
    if known is None:
        raise UserError(
            f"precision: of {gpu} GPUs nothing is known; known: {', '.join(PRECISIONS)}"
        )
    if wanted not in known:
        raise UserError(
            f"precision: Megatron-Bridge has no {wanted} on {gpu} GPUs; set one of"
            f" {', '.join(known)}"
        )
    yield "mixed_precision", (known[wanted], "precision")
    if wanted == "nvfp4":
        last = math.ceil(BF16_SHARE * config["model"]["layers"])
        yield "mixed_precision.first_last_layers_bf16", (True, "precision")
        yield "mixed_precision.num_layers_at_start_in_bf16", (0, "precision")
        yield "mixed_precision.num_layers_at_end_in_bf16", (last, "precision")
    yield "mixed_precision.grad_reduce_in_fp32", (True, "precision")
    yield "ddp.grad_reduce_in_fp32", (True,)
    yield "ddp.average_in_collective", (False,)  # the loss is a sum over tokens
    yield "optimizer.use_precision_aware_optimizer", (False,)
    for field in ("main_grads_dtype", "main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype"):
        yield f"optimizer.{field}", ("torch.float32",)


def parallel(sizes: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """How the model is cut; flex is DeepEP."""
    for field, key in {
        "tensor_model_parallel_size": "tensor",
        "pipeline_model_parallel_size": "pipeline",
        "context_parallel_size": "context",
        "expert_model_parallel_size": "expert",
        "expert_tensor_parallel_size": "expert_tensor",
        "sequence_parallel": "sequence",
        "moe_token_dispatcher_type": "dispatcher",
    }.items():
        yield f"model.{field}", (sizes[key], f"parallel.{key}")
    backend = "deepep" if sizes["dispatcher"] == "flex" else None
    yield "model.moe_flex_dispatcher_backend", (backend, "parallel.dispatcher")
    for field in ("virtual_pipeline_model_parallel_size", "pipeline_model_parallel_layout"):
        yield f"model.{field}", (None,)
    yield "model.pipeline_dtype", ("torch.bfloat16",)


def batch(sizes: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """Sequences per iteration and their length."""
    yield "train.global_batch_size", (sizes["global"], "batch.global")
    yield "train.micro_batch_size", (sizes["micro"], "batch.micro")
    yield "train.rampup_batch_size", (None,)
    yield "model.seq_length", (sizes["sequence"], "batch.sequence")
    yield "dataset.seq_length", (sizes["sequence"], "batch.sequence")


def schedule(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """The learning rate by iteration, and where the training stops.

    The lengths of the schedule are told apart from the iterations: a phase that stops before its
    schedule ends trains to its own stop, and the next one goes on in the same schedule. For that
    the schedule in a checkpoint must give way: it holds the other phase's iterations.
    """
    told = config["schedule"]
    stop = "stop_iteration" if "stop_iteration" in config else "iterations"
    anneal = told["decay_iterations"] if told["style"] == "wsd" else None
    yield "train.train_iters", (config[stop], stop)
    yield "train.train_samples", (None,)
    yield "optimizer.lr", (told["peak"], "schedule.peak")
    yield "optimizer.min_lr", (told["floor"], "schedule.floor")
    yield "scheduler.lr_decay_style", (STYLES[told["style"]], "schedule.style")
    yield "scheduler.lr_warmup_iters", (told["warmup_iterations"], "schedule.warmup_iterations")
    yield "scheduler.lr_warmup_init", (told.get("warmup_from", 0.0), "schedule.warmup_from")
    yield "scheduler.lr_warmup_fraction", (None,)
    yield "scheduler.lr_decay_iters", (told["end_iteration"], "schedule.end_iteration")
    yield "scheduler.lr_wsd_decay_iters", (anneal, "schedule.decay_iterations")
    yield "scheduler.lr_wsd_decay_style", (told["decay_style"], "schedule.decay_style")
    yield "scheduler.override_opt_param_scheduler", (True,)
    yield "scheduler.use_checkpoint_opt_param_scheduler", (False,)
    for end in ("start", "end"):
        decay = (config["optimizer"]["weight_decay"], "optimizer.weight_decay")
        yield f"scheduler.{end}_weight_decay", decay


def optimizer(told: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """AdamW, its state spread over the data-parallel ranks."""
    yield "optimizer.optimizer", ("adam",)
    for field, key in {
        "adam_beta1": "beta1",
        "adam_beta2": "beta2",
        "adam_eps": "epsilon",
        "weight_decay": "weight_decay",
        "clip_grad": "clip",
    }.items():
        yield f"optimizer.{field}", (told[key], f"optimizer.{key}")
    yield "optimizer.use_distributed_optimizer", (True,)
    yield "ddp.use_distributed_optimizer", (True,)


def validation(told: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """How often, and on how many batches; the older place of the two fields is emptied."""
    yield "validation.eval_interval", (told["every"], "validate.every")
    yield "validation.eval_iters", (told["batches"], "validate.batches")
    yield "train.eval_interval", (None,)
    yield "train.eval_iters", (None,)


def checkpoints(job: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """Where to save, and what to begin with: the job's own newest checkpoint before anything else.

    Without one, a phase that continues loads the phase before it whole. Weights alone come in as
    `pretrained_checkpoint`: the step is then 0, and Megatron-Bridge lets `load` go first.
    """
    own = Path(job["progress"]) / "megatron"
    init, begin = job["inputs"].get("init"), job["config"].get("init", "weights")
    resumes = any((own / tracker).exists() for tracker in TRACKERS)
    continues = begin == "continue" and not resumes
    yield "checkpoint.save", (str(own),)
    yield "checkpoint.load", (init if continues else str(own), "init" if continues else None)
    yield "checkpoint.pretrained_checkpoint", (init if begin in WEIGHTS else None, "init")
    yield "checkpoint.exit_on_missing_checkpoint", (continues or resumes,)
    yield "checkpoint.finetune", (False,)
    yield "checkpoint.ckpt_step", (None,)
    yield "checkpoint.save_interval", (job["options"]["save_every"], "options.save_every")
    yield "checkpoint.most_recent_k", (-1,)
    yield "checkpoint.ckpt_format", ("torch_dist",)
    yield "checkpoint.async_save", (True,)
    for field in ("save_optim", "save_rng", "load_optim", "load_rng", "fully_parallel_save"):
        yield f"checkpoint.{field}", (True,)


def running(job: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """Seed and logging; SIGTERM saves and ends. The time limit is `callbacks`'."""
    yield "rng.seed", (job["seed"], "seed")
    yield "logger.log_interval", (job["options"]["log_every"], "options.log_every")
    yield "logger.tensorboard_dir", (None,)  # the one tracking service that is on by default
    yield "train.exit_signal_handler", (True,)
    yield "train.exit_interval", (None,)
    yield "train.exit_duration_in_mins", (None,)


def adapters(lora: Mapping[str, Any] | None) -> Iterator[tuple[str, tuple]]:
    """Low-rank adapters; without them every weight is trained."""
    if lora is None:
        yield "peft", (None, "lora")
        return
    yield "peft.dim", (lora["rank"], "lora.rank")
    yield "peft.alpha", (lora["alpha"], "lora.alpha")
    yield "peft.dropout", (lora["dropout"], "lora.dropout")
    yield "peft.target_modules", (list(lora["targets"]), "lora.targets")


def further(told: Mapping[str, Any], made: Settings, above: str = "") -> Settings:
    """Fields that the config names itself, under `megatron`; none that another key says."""
    found: Settings = {}
    for name, value in told.items():
        field = f"{above}{name}"
        if field in made and made[field].key:
            raise UserError(f"megatron.{field}: {made[field].key} says this; set that instead")
        if isinstance(value, Mapping):
            found |= further(value, made, f"{field}.")
        else:
            found[field] = Setting(value, f"megatron.{field}")
    return found
