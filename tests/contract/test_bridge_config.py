"""The recipes' pretraining configs by Megatron-Bridge: they validate, and their model is ours."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from megatron.bridge import AutoBridge
from megatron.bridge.recipes.nemotronh.h100 import nemotron_3_nano, nemotron_3_super
from megatron.bridge.training.config import ConfigContainer
from transformer_engine.pytorch import optimizers

from nemoflow.config import Config
from nemoflow.config.run import Phase
from nemoflow.files import write_json
from nemoflow.hub import hub_config

CONFIG = Config(Path(__file__).parents[2] / "config")
SUPER3 = CONFIG.run("super3").pretrain
TINY = CONFIG.run("super3-tiny").pretrain
NANO3 = CONFIG.run("nano3").pretrain
GPUS = 1024


class FusedAdam:
    """transformer-engine's optimizer: Megatron-Bridge asks which arguments it takes."""

    def __init__(self, master_weight_dtype, exp_avg_dtype, exp_avg_sq_dtype, use_decoupled_grad):
        pass


@pytest.fixture(autouse=True)
def cluster(monkeypatch):
    """What a job on nodes of eight B200 finds."""
    device = SimpleNamespace(name="NVIDIA B200", major=10, minor=0, total_memory=180 << 30)
    monkeypatch.setenv("WORLD_SIZE", str(GPUS))
    monkeypatch.setattr(optimizers, "FusedAdam", FusedAdam)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (10, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)


def provider_fields(model: dict[str, Any]) -> dict[str, Any]:
    """A model section in the words of Megatron-Bridge's model provider."""
    attention, mamba, moe = (model[part] for part in ("attention", "mamba", "moe"))
    return {
        "hybrid_layer_pattern": model["pattern"],
        "num_layers": model["layers"],
        "hidden_size": model["hidden_size"],
        "layernorm_epsilon": model["norm_epsilon"],
        "init_method_std": model["init_std"],
        "num_attention_heads": attention["heads"],
        "num_query_groups": attention["kv_heads"],
        "kv_channels": attention["head_dim"],
        "position_embedding_type": "none",
        "mamba_num_heads": mamba["heads"],
        "mamba_head_dim": mamba["head_dim"],
        "mamba_state_dim": mamba["state"],
        "mamba_num_groups": mamba["groups"],
        "num_moe_experts": moe["experts"],
        "moe_router_topk": moe["experts_per_token"],
        "moe_ffn_hidden_size": moe["ffn"],
        "moe_shared_expert_intermediate_size": moe["shared_ffn"],
        "moe_latent_size": moe["latent"],
        "moe_router_topk_scaling_factor": moe["scaling"],
        "moe_router_bias_update_rate": moe["bias_update_rate"],
        "moe_aux_loss_coeff": moe["aux_loss"],
        "moe_router_score_function": "sigmoid",
        "moe_router_enable_expert_bias": True,
    }


def mtp_fields(mtp: dict[str, Any] | None) -> dict[str, Any]:
    """A model section's `mtp` in the words of the provider."""
    if mtp is None:
        return {"mtp_num_layers": 0}
    return {
        "mtp_hybrid_override_pattern": mtp["pattern"],
        "mtp_num_layers": mtp["depths"],
        "mtp_use_repeated_layer": True,
        "mtp_loss_scaling_factor": mtp["loss_scale"],
    }


def fields_of(provider: Any, names: dict[str, Any]) -> dict[str, Any]:
    """Those of a provider's fields that `names` has."""
    return {name: getattr(provider, name) for name in names}


@pytest.fixture
def super3(tmp_path, monkeypatch) -> ConfigContainer:
    """The super3 recipe, its model read from a config.json of ours instead of the hub's."""
    model = SUPER3.model.model_dump()
    model["moe"]["aux_loss"] = 0.0  # the recipe sets it; the local engine, whose file it is, cannot
    write_json(tmp_path / "config.json", hub_config(model, "bfloat16"))
    monkeypatch.setattr(nemotron_3_super, "NEMOTRON_3_SUPER_HF_MODEL_ID", str(tmp_path))
    return nemotron_3_super.nemotron_3_super_pretrain_16gpu_h100_bf16_config()


@pytest.fixture
def nano3() -> ConfigContainer:
    """The nano3 recipe, whose model is written out."""
    return nemotron_3_nano.nemotron_3_nano_pretrain_8gpu_h100_bf16_config()


def set_sizes(recipe: ConfigContainer, phase: Phase) -> None:
    """Parallel sizes, batch and schedule of a phase."""
    parallel, batch, schedule = phase.parallel, phase.batch, phase.schedule
    recipe.model.tensor_model_parallel_size = parallel.tensor
    recipe.model.pipeline_model_parallel_size = parallel.pipeline
    recipe.model.context_parallel_size = parallel.context
    recipe.model.expert_model_parallel_size = parallel.expert
    recipe.model.expert_tensor_parallel_size = parallel.expert_tensor
    recipe.model.sequence_parallel = parallel.sequence
    recipe.model.moe_token_dispatcher_type = parallel.dispatcher
    recipe.model.seq_length = recipe.dataset.seq_length = batch.sequence
    recipe.train.global_batch_size = batch.global_size
    recipe.train.micro_batch_size = batch.micro
    recipe.train.train_iters = schedule.end_iteration
    recipe.scheduler.lr_decay_style = {"wsd": "WSD"}.get(schedule.style, schedule.style)
    recipe.scheduler.lr_warmup_iters = schedule.warmup_iterations
    recipe.scheduler.lr_decay_iters = schedule.end_iteration
    recipe.scheduler.lr_wsd_decay_iters = schedule.decay_iterations
    recipe.scheduler.lr_wsd_decay_style = schedule.decay_style
    recipe.checkpoint.save = "checkpoints"


def test_super_model(super3):
    """Megatron-Bridge reads from our config.json the model that config/super3.yaml says."""
    model = SUPER3.model.model_dump()
    expected = provider_fields(model) | mtp_fields(model["mtp"])
    expected |= {"vocab_size": model["vocab_size"], "mamba_chunk_size": model["mamba"]["chunk"]}
    assert fields_of(super3.model, expected) == expected


def test_tiny_model(tmp_path):
    """Megatron-Bridge reads the tiny run's model from the config.json of the local engine."""
    model = TINY.model.model_dump()
    write_json(tmp_path / "config.json", hub_config(model))
    provider = AutoBridge.from_hf_pretrained(tmp_path).to_megatron_provider(load_weights=False)
    expected = provider_fields(model) | mtp_fields(model["mtp"])
    del expected["moe_aux_loss_coeff"]  # stands in no config.json
    del expected["init_method_std"]
    assert fields_of(provider, expected) == expected


def test_nano_model(nano3):
    """config/nano3.yaml has the numbers that Megatron-Bridge's recipe has written out."""
    model = NANO3.model.model_dump()
    expected = provider_fields(model) | mtp_fields(model["mtp"])
    assert fields_of(nano3.model, expected) == expected


def test_super_optimizer(super3):
    """The optimizer and the learning rates are the recipe's own."""
    ours, theirs = SUPER3.optimizer, super3.optimizer
    schedule = SUPER3.phases["phase1"].schedule
    assert (theirs.lr, theirs.min_lr) == (schedule.peak, schedule.floor)
    assert (theirs.adam_beta1, theirs.adam_beta2) == (ours.beta1, ours.beta2)
    assert (theirs.adam_eps, theirs.weight_decay) == (ours.epsilon, ours.weight_decay)
    assert theirs.clip_grad == ours.clip
    assert super3.scheduler.lr_decay_style.lower() == schedule.style
    assert super3.scheduler.lr_wsd_decay_style == schedule.decay_style


@pytest.mark.parametrize("name", SUPER3.phases)
def test_super_phases(name, super3):
    """Each phase with its sizes passes Megatron-Bridge's validation."""
    set_sizes(super3, SUPER3.phases[name])
    super3.validate()


@pytest.mark.parametrize("name", NANO3.phases)
def test_nano_phases(name, nano3):
    """Each phase with its sizes passes Megatron-Bridge's validation."""
    set_sizes(nano3, NANO3.phases[name])
    nano3.validate()


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("parallel", {"tensor": 3}, "tensor"),
        ("parallel", {"pipeline": 3}, "divisible"),
        ("batch", {"global_size": 3073}, "batch"),
    ],
)
def test_refused(section, change, said, super3):
    """Megatron-Bridge refuses sizes that do not divide."""
    phase = SUPER3.phases["phase1"]
    changed = getattr(phase, section).model_copy(update=change)
    set_sizes(super3, phase.model_copy(update={section: changed}))
    with pytest.raises((AssertionError, ValueError), match=said):
        super3.validate()
