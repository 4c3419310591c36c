"""The hub's own layout of a NemotronH checkpoint: config.json and the names of the weights.

transformers writes config.json with names that its own older releases refuse (5.12.1, which
Megatron-Bridge pins), and drops the MTP head. So both files are written here, as released
checkpoints have them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from nemoflow.errors import UserError
from nemoflow.files import write_json

STACKED = re.compile(r"(.*\.experts)\.(up_proj|down_proj)")
ONE_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(up_proj|down_proj)\.weight")


# What every NemotronH of the recipes has in common.
FIXED = {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "mlp_hidden_act": "relu2",
    "mamba_hidden_act": "silu",
    "mamba_ssm_cache_dtype": "float32",
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "use_conv_bias": True,
    "residual_in_fp32": False,
    "rescale_prenorm_residual": True,
    "time_step_min": 0.001,
    "time_step_max": 0.1,
    "time_step_floor": 1e-4,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def check_model(model: Mapping[str, Any]) -> None:
    """Raise UserError for a model section that the local engine cannot build."""
    patterns = {"model.pattern": model["pattern"]}
    if model["mtp"]:
        patterns["model.mtp.pattern"] = model["mtp"]["pattern"]
    for key, pattern in patterns.items():
        if strange := sorted(set(pattern) - set("ME*-")):
            raise UserError(f"{key}: {pattern!r} has {strange}; layers are M, E, * and -")
        if "-" in pattern and not model["ffn"]:
            raise UserError(f"model.ffn: the dense layers (-) of {key} {pattern!r} need a width")
    if model["layers"] != len(model["pattern"]):
        raise UserError(
            f"model.layers: {model['layers']}, but model.pattern {model['pattern']!r} has"
            f" {len(model['pattern'])}"
        )
    if model["moe"]["aux_loss"]:
        raise UserError(
            f"model.moe.aux_loss: {model['moe']['aux_loss']}, but the local engine balances experts"
            " by bias alone; set it to 0 and use model.moe.bias_update_rate"
        )


def hub_config(model: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json of a model section; what `NemotronHConfig` of any release reads.

    Raises UserError as `check_model` does.
    """
    check_model(model)
    attention, mamba, moe, mtp = (model[key] for key in ("attention", "mamba", "moe", "mtp"))
    return FIXED | {
        "dtype": dtype,
        "torch_dtype": dtype,
        "vocab_size": model["vocab_size"],
        "hidden_size": model["hidden_size"],
        "hybrid_override_pattern": model["pattern"],
        "num_hidden_layers": model["layers"],
        "intermediate_size": model["ffn"] or moe["shared_ffn"],
        "layer_norm_epsilon": model["norm_epsilon"],
        "initializer_range": model["init_std"],
        "max_position_embeddings": model["max_positions"],
        "num_attention_heads": attention["heads"],
        "num_key_value_heads": attention["kv_heads"],
        "head_dim": attention["head_dim"],
        "mamba_num_heads": mamba["heads"],
        "mamba_head_dim": mamba["head_dim"],
        "ssm_state_size": mamba["state"],
        "n_groups": mamba["groups"],
        "conv_kernel": mamba["conv"],
        "chunk_size": mamba["chunk"],
        "n_routed_experts": moe["experts"],
        "num_experts_per_tok": moe["experts_per_token"],
        "moe_intermediate_size": moe["ffn"],
        "moe_shared_expert_intermediate_size": moe["shared_ffn"],
        "moe_latent_size": moe["latent"],
        "routed_scaling_factor": moe["scaling"],
        "num_nextn_predict_layers": 1 if mtp else 0,  # depths share their weights
        "mtp_hybrid_override_pattern": mtp["pattern"] if mtp else "*E",
    }


def to_hub(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's weights under the hub's names: `backbone.`, and one matrix per expert."""
    weights = {}
    for name, tensor in state.items():
        name = re.sub(r"^model\.", "backbone.", name)
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
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Load a checkpoint's or an export's model.safetensors.

    Raises UserError when the weights are not those of `model`'s architecture.
    """
    state = from_hub(load_file(folder / "model.safetensors"))
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
