"""megatron-core's own HybridModel on a CPU or one GPU, from a config's model section.

Import it where transformer-engine is absent and `mamba_ssm.ops.triton` can be imported: the real
one on a GPU, `mamba_reference` on a CPU.
"""

from contextlib import nullcontext
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.activations import squared_relu
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt.moe_module_specs import get_moe_module_spec
from megatron.core.models.hybrid import hybrid_block
from megatron.core.models.hybrid.hybrid_block import HybridStack, HybridStackSubmodules
from megatron.core.models.hybrid.hybrid_model import HybridModel
from megatron.core.ssm.mamba_layer import MambaLayer, MambaLayerSubmodules
from megatron.core.ssm.mamba_mixer import MambaMixer, MambaMixerSubmodules
from megatron.core.tensor_parallel import random
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.moe import moe_layer
from megatron.core.transformer.multi_token_prediction import (
    MultiTokenPredictionBlock,
    MultiTokenPredictionBlockSubmodules,
    MultiTokenPredictionLayer,
    MultiTokenPredictionLayerSubmodules,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_layer import (
    MoETransformerLayer,
    TransformerLayer,
    TransformerLayerSubmodules,
)


class DuplicatedLinear(torch.nn.Linear):
    """In place of transformer-engine's linear layer, for the latent projections."""

    def __init__(self, inputs: int, outputs: int, **unused: Any):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Output and absent bias, as Megatron's linear layers return them."""
        return super().forward(x), None


class OneGenerator:
    """In place of the random number trackers of CUDA devices: the default generators."""

    def fork(self, name: str = "") -> nullcontext:
        """Change nothing."""
        return nullcontext()


def begin(device: str) -> None:
    """Give megatron-core what it takes from transformer-engine, and on a "cpu" from CUDA."""
    if device == "cpu":
        torch.cuda.current_device = lambda: torch.device("cpu")
    random._CUDA_RNG_STATE_TRACKER = OneGenerator()
    random._CUDA_RNG_STATE_TRACKER_INITIALIZED = True
    hybrid_block.TENorm = WrappedTorchNorm
    moe_layer.HAVE_TE = True
    moe_layer.TELinear = DuplicatedLinear
    torch.distributed.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        store=torch.distributed.HashStore(),
        rank=0,
        world_size=1,
    )
    parallel_state.initialize_model_parallel()


def transformer_config(model: dict[str, Any]) -> TransformerConfig:
    """The model section in megatron-core's words; what it does not say is the recipes' setting."""
    attention, mamba, moe, mtp = (model[part] for part in ("attention", "mamba", "moe", "mtp"))
    return TransformerConfig(
        num_layers=model["layers"],
        hidden_size=model["hidden_size"],
        num_attention_heads=attention["heads"],
        num_query_groups=attention["kv_heads"],
        kv_channels=attention["head_dim"],
        mamba_num_heads=mamba["heads"],
        mamba_head_dim=mamba["head_dim"],
        mamba_state_dim=mamba["state"],
        mamba_num_groups=mamba["groups"],
        num_moe_experts=moe["experts"],
        moe_router_topk=moe["experts_per_token"],
        moe_ffn_hidden_size=moe["ffn"],
        moe_shared_expert_intermediate_size=moe["shared_ffn"],
        moe_latent_size=moe["latent"],
        moe_router_topk_scaling_factor=moe["scaling"],
        moe_router_score_function="sigmoid",
        moe_router_enable_expert_bias=True,
        moe_router_load_balancing_type="none",
        moe_router_dtype="fp32",
        mtp_num_layers=mtp["depths"] if mtp else None,
        mtp_use_repeated_layer=bool(mtp),
        init_method_std=model["init_std"],
        layernorm_epsilon=model["norm_epsilon"],
        normalization="RMSNorm",
        activation_func=squared_relu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        is_hybrid_model=True,
        # without transformer-engine, causal-conv1d and fused kernels
        use_cpu_initialization=True,
        use_mamba_mem_eff_path=False,
        moe_token_dispatcher_type="allgather",
        gradient_accumulation_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
    )


def stack_spec() -> ModuleSpec:
    """The hybrid stack of torch's own layers; upstream's is of transformer-engine's."""
    mixer = ModuleSpec(
        MambaMixer,
        submodules=MambaMixerSubmodules(in_proj=ColumnParallelLinear, out_proj=RowParallelLinear),
    )
    attention = ModuleSpec(
        SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear,
            core_attention=DotProductAttention,
            linear_proj=RowParallelLinear,
        ),
    )
    experts = get_moe_module_spec(use_te=False, num_experts=1, moe_grouped_gemm=False)
    return ModuleSpec(
        HybridStack,
        submodules=HybridStackSubmodules(
            mamba_layer=ModuleSpec(
                MambaLayer,
                submodules=MambaLayerSubmodules(
                    norm=WrappedTorchNorm, mixer=mixer, mamba_bda=get_bias_dropout_add
                ),
            ),
            attention_layer=ModuleSpec(
                TransformerLayer,
                submodules=TransformerLayerSubmodules(
                    input_layernorm=WrappedTorchNorm,
                    self_attention=attention,
                    self_attn_bda=get_bias_dropout_add,
                ),
            ),
            moe_layer=ModuleSpec(
                MoETransformerLayer,
                submodules=TransformerLayerSubmodules(
                    pre_mlp_layernorm=WrappedTorchNorm, mlp=experts, mlp_bda=get_bias_dropout_add
                ),
            ),
            mtp_block_spec=mtp_spec(),
        ),
    )


def mtp_spec() -> ModuleSpec:
    """The norms and the projection of a prediction depth; its layers follow from the pattern."""
    depth = MultiTokenPredictionLayerSubmodules(
        enorm=WrappedTorchNorm,
        hnorm=WrappedTorchNorm,
        eh_proj=ColumnParallelLinear,
        mtp_model_layer=None,
        layer_norm=WrappedTorchNorm,
    )
    layer = ModuleSpec(MultiTokenPredictionLayer, submodules=depth)
    return ModuleSpec(
        MultiTokenPredictionBlock,
        submodules=MultiTokenPredictionBlockSubmodules(layer_specs=[layer]),
    )


def build(model: dict[str, Any]) -> HybridModel:
    """A HybridModel whose every weight matters: no norm is 1, no bias is 0."""
    mtp = model["mtp"]
    pattern = model["pattern"] + (f"/{mtp['pattern']}" * mtp["depths"] if mtp else "")
    network = HybridModel(
        config=transformer_config(model),
        hybrid_stack_spec=stack_spec(),
        vocab_size=model["vocab_size"],
        max_sequence_length=model["max_positions"],
        hybrid_layer_pattern=pattern,
    )
    for name, tensor in network.state_dict().items():
        if "norm" in name or name.endswith(".D"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("expert_bias"):
            tensor.normal_(std=0.1)
    return network.eval()


def logits(network: HybridModel, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits [batch, length, vocabulary] of the model (`main`) and of each depth (`mtp1`, ...).

    A depth reads past the end of the sequence at its last positions.
    """
    length = tokens.shape[1]
    positions = torch.arange(length, device=tokens.device).expand_as(tokens)
    future = torch.ones(1, 1, length, length, dtype=torch.bool, device=tokens.device).triu(1)
    hidden = network.decoder(network.embedding(tokens, positions), attention_mask=future)
    names = ["main"]
    if network.mtp_process:
        hidden = network.mtp(tokens, positions, hidden, future, embedding=network.embedding)
        names += [f"mtp{depth}" for depth in range(1, network.config.mtp_num_layers + 1)]
    outputs, _ = network.output_layer(hidden)
    parts = outputs.transpose(0, 1).chunk(len(names), dim=1)
    return {name: part.contiguous() for name, part in zip(names, parts, strict=True)}
