"""The hub's config.json of a NemotronH model section, and what another's config.json says of one.

transformers writes config.json with names that its own older releases refuse (5.12.1, which
Megatron-Bridge pins). So it is written here, as released checkpoints have it.
"""

from collections.abc import Mapping
from typing import Any

# Keys of config.json and of the model section that say the same.
NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "hybrid_override_pattern": "pattern",
    "num_hidden_layers": "layers",
    "intermediate_size": "ffn",
    "layer_norm_epsilon": "norm_epsilon",
    "initializer_range": "init_std",
    "max_position_embeddings": "max_positions",
    "num_attention_heads": "attention.heads",
    "num_key_value_heads": "attention.kv_heads",
    "head_dim": "attention.head_dim",
    "mamba_num_heads": "mamba.heads",
    "mamba_head_dim": "mamba.head_dim",
    "ssm_state_size": "mamba.state",
    "n_groups": "mamba.groups",
    "conv_kernel": "mamba.conv",
    "chunk_size": "mamba.chunk",
    "n_routed_experts": "moe.experts",
    "num_experts_per_tok": "moe.experts_per_token",
    "moe_intermediate_size": "moe.ffn",
    "moe_shared_expert_intermediate_size": "moe.shared_ffn",
    "moe_latent_size": "moe.latent",
    "routed_scaling_factor": "moe.scaling",
    "mtp_hybrid_override_pattern": "mtp.pattern",
}
# What every NemotronH of the recipes has in common.
FIXED = {
    "model_type": "nemotron_h",
    "mlp_hidden_act": "relu2",
    "mamba_hidden_act": "silu",
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "use_conv_bias": True,
    "tie_word_embeddings": False,
}
# The same, of what no weight and no result follows from once a model is trained.
UNUSED = {
    "architectures": ["NemotronHForCausalLM"],
    "mamba_ssm_cache_dtype": "float32",
    "residual_in_fp32": False,
    "rescale_prenorm_residual": True,
    "time_step_min": 0.001,
    "time_step_max": 0.1,
    "time_step_floor": 1e-4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
# transformers from 5.3 on writes lists of words; older words still occur (its `remap_legacy…`).
LETTERS = {
    "linear_attention": "M",
    "mamba": "M",
    "full_attention": "*",
    "attention": "*",
    "moe": "E",
    "mlp": "-",
}


def value_at(model: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of a model section, None where it is not set."""
    value: Any = model
    for name in key.split("."):
        value = (value or {}).get(name)
    return value


def hub_config(model: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json of a model section; what `NemotronHConfig` of any release reads."""
    named = {name: value_at(model, key) for name, key in NAMES.items()}
    return {
        **FIXED,
        **UNUSED,
        **named,
        "dtype": dtype,
        "torch_dtype": dtype,
        "intermediate_size": model["ffn"] or model["moe"]["shared_ffn"],
        "num_nextn_predict_layers": 1 if model["mtp"] else 0,  # depths share their weights
        "mtp_hybrid_override_pattern": value_at(model, "mtp.pattern") or "*E",
    }


def differences(config: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """The keys that a config.json and a model section both have and not alike, as text.

    And those of which the recipes know one value alone.
    """
    config = {**patterns(config), **config}
    found = []
    for name, key in NAMES.items():
        theirs, ours = config.get(name), value_at(model, key)
        if None not in (theirs, ours) and theirs != ours:
            found.append(f"{name}: {theirs}; pretrain.model.{key}: {ours}")
    for name, ours in FIXED.items():
        if (theirs := config.get(name, ours)) != ours:
            found.append(f"{name}: {theirs}; in every model of the recipes: {ours}")
    for name, key in (("moe_latent_size", "moe.latent"), ("num_nextn_predict_layers", "mtp")):
        theirs, ours = config.get(name), value_at(model, key)
        if name in config and bool(theirs) != bool(ours):
            found.append(f"{name}: {theirs or 'none'}; pretrain.model.{key}: {ours or 'none'}")
    return found


def patterns(config: Mapping[str, Any]) -> dict[str, Any]:
    """The patterns of a config.json that has lists of words instead."""
    lists = {
        "hybrid_override_pattern": config.get("layers_block_type") or config.get("layer_types"),
        "mtp_hybrid_override_pattern": config.get("mtp_layers_block_type"),
    }
    return {
        name: "".join(LETTERS.get(word, "?") for word in words)
        for name, words in lists.items()
        if words
    }
