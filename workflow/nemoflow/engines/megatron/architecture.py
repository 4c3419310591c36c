"""The model section in the words of Megatron-Bridge's model provider; without torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from nemoflow.errors import UserError
from nemoflow.torch_dist import FIELDS

CONV = 4
MODEL = FIELDS | {
    "init_method_std": "init_std",
    "mamba_chunk_size": "mamba.chunk",
    "moe_router_bias_update_rate": "moe.bias_update_rate",
    "moe_aux_loss_coeff": "moe.aux_loss",
}
MTP = {
    "mtp_num_layers": "mtp.depths",
    "mtp_hybrid_override_pattern": "mtp.pattern",
    "mtp_loss_scaling_factor": "mtp.loss_scale",
}
# What every model of the recipes has in common, and what the benchmarks' recipes change of it: they
# drop tokens beyond an expert's capacity and capture CUDA graphs for the one shape they measure.
FIXED = {
    "position_embedding_type": "none",
    "normalization": "RMSNorm",
    "add_bias_linear": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "share_embeddings_and_output_weights": False,
    "should_pad_vocab": False,
    "moe_router_score_function": "sigmoid",
    "moe_router_enable_expert_bias": True,
    "moe_router_load_balancing_type": "seq_aux_loss",
    "moe_router_dtype": "fp32",
    "moe_router_force_load_balancing": False,
    "moe_expert_capacity_factor": None,
    "moe_pad_expert_input_to_capacity": False,
    "moe_shared_expert_overlap": False,
    "keep_mtp_spec_in_bf16": True,
    "calculate_per_token_loss": True,
    "cuda_graph_impl": "none",
    "cuda_graph_scope": [],
    "cuda_graph_modules": [],
    "enable_cuda_graph": False,
}


def fields(model: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """The model section; every number of it.

    Raises:
        UserError: a convolution that megatron-core's Mamba mixer has not.
    """
    if (conv := model["mamba"]["conv"]) != CONV:
        raise UserError(f"model.mamba.conv: {conv}; megatron-core's mixer has a width of {CONV}")
    names = MODEL | (MTP if model.get("mtp") else {})
    if not model.get("ffn"):
        names.pop("ffn_hidden_size")
    for field, key in names.items():
        value: Any = model
        for name in key.split("."):
            value = value.get(name)
        yield f"model.{field}", (value, f"model.{key}")
    if model.get("mtp"):
        yield "model.mtp_use_repeated_layer", (True, "model.mtp.depths")
    else:
        yield "model.mtp_num_layers", (0, "model.mtp")
        yield "model.mtp_hybrid_override_pattern", (None, "model.mtp")
    for field, value in FIXED.items():
        yield f"model.{field}", (value,)
