"""Jobs of the recipes as Megatron-Bridge's own ConfigContainer: valid, and with our numbers."""

from typing import Any

import pytest
import torch
from bridge_jobs import CONFIG, LORA, NODES, asked, container
from megatron.bridge import AutoBridge
from megatron.bridge.data.loaders import get_blend_and_blend_per_split
from megatron.bridge.recipes.nemotronh import nemotron_3_nano, nemotron_3_super
from megatron.bridge.training.config import ConfigContainer
from megatron.bridge.training.mixed_precision import nemotron_3_super_bf16_with_nvfp4_mixed

from nemoflow.engines.megatron import recipe, validate
from nemoflow.files import write_json
from nemoflow.hub import hub_config, value_at

pytestmark = pytest.mark.usefixtures("gpus_put_back")
STAGES = [
    *((run, f"pretrain.{phase}") for run in NODES for phase in CONFIG.run(run).pretrain.phases),
    *((run, stage) for run in NODES for stage in ("sft", "sft with adapters")),
]
# Fields of the container, and the keys of a job's config that say them.
MODEL = {
    "num_layers": "layers",
    "hidden_size": "hidden_size",
    "vocab_size": "vocab_size",
    "layernorm_epsilon": "norm_epsilon",
    "init_method_std": "init_std",
    "num_attention_heads": "attention.heads",
    "num_query_groups": "attention.kv_heads",
    "kv_channels": "attention.head_dim",
    "mamba_num_heads": "mamba.heads",
    "mamba_head_dim": "mamba.head_dim",
    "mamba_state_dim": "mamba.state",
    "mamba_num_groups": "mamba.groups",
    "mamba_chunk_size": "mamba.chunk",
    "num_moe_experts": "moe.experts",
    "moe_router_topk": "moe.experts_per_token",
    "moe_ffn_hidden_size": "moe.ffn",
    "moe_shared_expert_intermediate_size": "moe.shared_ffn",
    "moe_latent_size": "moe.latent",
    "moe_router_topk_scaling_factor": "moe.scaling",
    "moe_router_bias_update_rate": "moe.bias_update_rate",
    "moe_aux_loss_coeff": "moe.aux_loss",
}
STAGE = {
    "model.tensor_model_parallel_size": "parallel.tensor",
    "model.pipeline_model_parallel_size": "parallel.pipeline",
    "model.context_parallel_size": "parallel.context",
    "model.expert_model_parallel_size": "parallel.expert",
    "model.expert_tensor_parallel_size": "parallel.expert_tensor",
    "model.sequence_parallel": "parallel.sequence",
    "model.moe_token_dispatcher_type": "parallel.dispatcher",
    "model.seq_length": "batch.sequence",
    "dataset.seq_length": "batch.sequence",
    "train.global_batch_size": "batch.global",
    "train.micro_batch_size": "batch.micro",
    "validation.eval_global_batch_size": "batch.global",
    "optimizer.lr": "schedule.peak",
    "optimizer.min_lr": "schedule.floor",
    "scheduler.lr_warmup_iters": "schedule.warmup_iterations",
    "scheduler.lr_decay_iters": "schedule.end_iteration",
    "scheduler.lr_wsd_decay_style": "schedule.decay_style",
    "optimizer.adam_beta1": "optimizer.beta1",
    "optimizer.adam_beta2": "optimizer.beta2",
    "optimizer.adam_eps": "optimizer.epsilon",
    "optimizer.weight_decay": "optimizer.weight_decay",
    "scheduler.start_weight_decay": "optimizer.weight_decay",
    "scheduler.end_weight_decay": "optimizer.weight_decay",
    "optimizer.clip_grad": "optimizer.clip",
    "validation.eval_interval": "validate.every",
    "validation.eval_iters": "validate.batches",
    "rng.seed": "seed",
}
# What the recipes' functions of this release have otherwise, or no key of ours says.
FIXED = {
    "model.position_embedding_type": "none",
    "model.normalization": "RMSNorm",
    "model.add_bias_linear": False,
    "model.hidden_dropout": 0.0,
    "model.attention_dropout": 0.0,
    "model.share_embeddings_and_output_weights": False,
    "model.moe_router_score_function": "sigmoid",
    "model.moe_router_enable_expert_bias": True,
    "model.moe_router_load_balancing_type": "seq_aux_loss",
    "model.moe_router_dtype": "fp32",
    "model.moe_expert_capacity_factor": None,
    "model.calculate_per_token_loss": True,
    "model.bf16": True,
    "ddp.average_in_collective": False,
    "ddp.grad_reduce_in_fp32": True,
    "ddp.use_distributed_optimizer": True,
    "optimizer.optimizer": "adam",
    "optimizer.exp_avg_dtype": torch.float32,
    "optimizer.main_params_dtype": torch.float32,
    "scheduler.override_opt_param_scheduler": True,
    "train.exit_signal_handler": True,
    "checkpoint.ckpt_format": "torch_dist",
    "checkpoint.async_save": True,
    "checkpoint.finetune": False,
    "checkpoint.save_interval": validate.OPTIONS["save_every"],
    "logger.log_interval": validate.OPTIONS["log_every"],
    "logger.tensorboard_dir": None,
    "tokenizer.tokenizer_type": "HuggingFaceTokenizer",
}


def field(made: ConfigContainer, name: str) -> Any:
    """A field by its dotted name."""
    value: Any = made
    for part in name.split("."):
        value = getattr(value, part)
    return value


def fields_of(made: ConfigContainer, names: dict[str, Any]) -> dict[str, Any]:
    """Those fields that `names` has."""
    return {name: field(made, name) for name in names}


@pytest.mark.parametrize(("run", "stage"), STAGES)
def test_stage(run, stage, tmp_path):
    """Each phase and each kind of fine-tuning is valid, with the numbers of the YAML."""
    told = asked(run, stage)
    made, config = container(tmp_path, told), told["config"]
    expected = {name: value_at(config, key) for name, key in STAGE.items()}
    expected |= {f"model.{name}": value_at(config["model"], key) for name, key in MODEL.items()}
    expected["model.layernorm_epsilon"] = config["model"]["norm_epsilon"]
    expected |= FIXED | {"checkpoint.save": str(tmp_path / "progress/megatron")}
    wsd = config["schedule"]["style"] == "wsd"
    expected |= {
        "scheduler.lr_decay_style": "WSD" if wsd else config["schedule"]["style"],
        "scheduler.lr_wsd_decay_iters": config["schedule"]["decay_iterations"] if wsd else None,
        "model.moe_flex_dispatcher_backend": (
            "deepep" if config["parallel"]["dispatcher"] == "flex" else None
        ),
        "train.train_iters": config.get("stop_iteration") or config["iterations"],
    }
    assert len(expected) >= 75
    assert fields_of(made, expected) == expected
    assert_pattern(made, config["model"])


def assert_pattern(made: ConfigContainer, model: dict[str, Any]) -> None:
    """The layers, and behind them the prediction depths, which share their weights."""
    main, *depths = made.model.hybrid_layer_pattern.split("/")
    mtp = model.get("mtp")
    assert main == model["pattern"]
    assert made.model.mtp_num_layers == len(depths) == (mtp["depths"] if mtp else 0)
    if mtp:
        assert set(depths) == {mtp["pattern"]}
        assert made.model.mtp_use_repeated_layer
        assert made.model.mtp_loss_scaling_factor == mtp["loss_scale"]


@pytest.mark.parametrize("phase", ["phase1", "phase2"])
def test_schedule_is_the_whole_one(phase, tmp_path):
    """Both phases of super3 run in one schedule, and each stops where it says."""
    made = container(tmp_path, asked("super3", f"pretrain.{phase}"))
    assert made.train.train_iters == {"phase1": 794729, "phase2": 993411}[phase]
    steps = made.scheduler
    assert steps.lr_decay_steps == 993411 * 3072
    assert steps.lr_warmup_steps == 7949 * 3072
    assert steps.wsd_decay_steps == (993411 - 794729) * 3072


@pytest.mark.parametrize(
    ("stage", "begins", "load", "weights"),
    [
        ("pretrain.phase1", False, "own", None),
        ("pretrain.phase2", False, "init", None),
        ("pretrain.phase2", True, "own", None),
        ("pretrain.long_context_1m", False, "own", "init"),
        ("pretrain.long_context_1m", True, "own", "init"),
        ("sft", False, "own", "init"),
    ],
)
def test_beginning(stage, begins, load, weights, tmp_path):
    """A job's own checkpoint comes first, then what its `init` says; weights alone start at 0."""
    own = tmp_path / "progress/megatron"
    if begins:
        own.mkdir(parents=True)
        (own / "latest_train_state.pt").touch()
    saved = container(tmp_path, asked("super3", stage)).checkpoint
    places = {"own": str(own), "init": str(tmp_path / "init"), None: None}
    assert (saved.load, saved.pretrained_checkpoint) == (places[load], places[weights])
    assert saved.exit_on_missing_checkpoint == (begins or load == "init")


def test_precision(tmp_path):
    """NVFP4 is the recipe's: the last 15% of the layers in BF16, here 14; FP8 differs by GPU."""
    made = container(tmp_path, asked("super3", "pretrain.phase1"))
    assert made.mixed_precision == nemotron_3_super_bf16_with_nvfp4_mixed()
    assert (made.model.fp4, made.model.num_layers_at_end_in_bf16) == ("e2m1", 14)
    for gpu, kind in (("b200", "mxfp8"), ("h100", "tensorwise")):
        changed = asked("super3", "pretrain.phase1", gpu=gpu, precision="fp8")
        fp8 = container(tmp_path / gpu, changed)
        assert (fp8.model.fp8_recipe, fp8.model.fp4) == (kind, None)


def test_blend(tmp_path):
    """A blend file is read as Megatron-Bridge reads it, and cached in the job's own folder."""
    told = asked("super3", "pretrain.phase1")
    made = container(tmp_path, told).dataset
    blend = str(tmp_path / "blend.json")
    _, theirs = get_blend_and_blend_per_split(per_split_data_args_path=blend)
    assert [list(map(list, split)) for split in made.blend_per_split] == [
        [paths, [float(weight) for weight in weights]] for paths, weights in theirs
    ]
    assert not made.mock
    assert made.path_to_cache == str(tmp_path / "progress/index")


def test_mock_data(tmp_path):
    """Without a blend, Megatron makes up its data and needs no tokenizer."""
    job = validate.stand_in_job(asked("super3-smoke", "pretrain.phase1"), tmp_path)
    job["inputs"] = {}
    made = validate.validated(job, asked("super3-smoke", "pretrain.phase1"))
    assert made.dataset.mock
    assert made.tokenizer.tokenizer_type == "NullTokenizer"


def test_packed_rows(tmp_path):
    """Rows come from the packed product, padded as its parallel sizes ask."""
    made = container(tmp_path, asked("super3", "sft")).dataset
    rows = made.offline_packing_specs
    assert made.enable_offline_packing
    assert made.hf_dataset is None
    assert rows.packed_sequence_size == 262144
    assert str(rows.packed_train_data_path) == str(tmp_path / "packed/train")
    assert rows.pad_seq_to_mult == CONFIG.data("mixtures", "super3").pad_multiple


def test_adapters(tmp_path):
    """LoRA trains adapters where the config says; full fine-tuning has none."""
    made = container(tmp_path, asked("nano3", "sft with adapters")).peft
    assert (made.dim, made.alpha, made.dropout) == (16, 32, 0.05)
    assert made.target_modules == LORA["targets"]
    assert container(tmp_path / "full", asked("nano3", "sft")).peft is None


def test_further_fields(tmp_path):
    """What the config names itself reaches the container, variables of the environment too."""
    changes = {
        "megatron__model__recompute_granularity": "full",
        "megatron__model__recompute_method": "uniform",
        "megatron__model__recompute_num_layers": 1,
        "megatron__env_vars__NVLINK_DOMAIN_SIZE": 72,
    }
    made = container(tmp_path, asked("super3", "sft", **changes))
    assert (made.model.recompute_granularity, made.model.recompute_num_layers) == ("full", 1)
    assert made.env_vars["NVLINK_DOMAIN_SIZE"] == 72


def test_tiny_model(tmp_path):
    """Megatron-Bridge reads the tiny run's model from the config.json of the local engine."""
    model = CONFIG.run("super3-tiny").pretrain.model.model_dump()
    write_json(tmp_path / "config.json", hub_config(model))
    provider = AutoBridge.from_hf_pretrained(tmp_path).to_megatron_provider(load_weights=False)
    expected = {name: value_at(model, key) for name, key in MODEL.items()}
    del expected["moe_aux_loss_coeff"]  # stands in no config.json
    del expected["init_method_std"]
    assert {name: getattr(provider, name) for name in expected} == expected
    assert provider.hybrid_layer_pattern == model["pattern"]
    assert provider.mtp_hybrid_override_pattern == model["mtp"]["pattern"]


def test_nano_recipe():
    """config/nano3.yaml has the numbers that Megatron-Bridge's recipe has written out."""
    model = CONFIG.run("nano3").pretrain.model.model_dump()
    theirs = nemotron_3_nano.nemotron_3_nano_pretrain_config().model
    expected = {name: value_at(model, key) for name, key in MODEL.items()}
    del expected["vocab_size"]  # the tokenizer's
    assert {name: getattr(theirs, name) for name in expected} == expected
    assert theirs.hybrid_layer_pattern == model["pattern"]


def test_super_recipe():
    """The optimizer and the learning rates are the recipe's own."""
    pretrain = CONFIG.run("super3").pretrain
    ours, rate = pretrain.optimizer, pretrain.phases["phase1"].schedule
    with recipe.local_model(pretrain.model.model_dump()):
        made = nemotron_3_super.nemotron_3_super_pretrain_config()
    theirs = made.optimizer
    assert (theirs.lr, theirs.min_lr) == (rate.peak, rate.floor)
    assert (theirs.adam_beta1, theirs.adam_beta2) == (ours.beta1, ours.beta2)
    assert (theirs.adam_eps, theirs.weight_decay) == (ours.epsilon, ours.weight_decay)
    assert theirs.clip_grad == ours.clip
    assert made.scheduler.lr_decay_style.lower() == rate.style
    assert made.scheduler.lr_wsd_decay_style == rate.decay_style
