"""megatron-core's own HybridModel on a CPU or one GPU, from a config's model section.

Import it where transformer-engine is absent and `mamba_ssm.ops.triton` can be imported: the real
one on a GPU, `mamba_reference` on a CPU.
"""

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
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
from megatron.core.transformer.enums import AttnBackend, AttnMaskType
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

# Fields for a model without transformer-engine, causal-conv1d and fused kernels.
ON_CPU = {
    "apply_rope_fusion": False,
    "attention_backend": AttnBackend.auto,
    "moe_grouped_gemm": False,
    "moe_permute_fusion": False,
    "moe_shared_expert_overlap": False,
    "use_cpu_initialization": True,
    "use_mamba_mem_eff_path": False,
    "moe_token_dispatcher_type": "allgather",
    "gradient_accumulation_fusion": False,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "masked_softmax_fusion": False,
    "persist_layer_norm": False,
}


class LayerNormColumnParallelLinear(ColumnParallelLinear):
    """In place of transformer-engine's linear layer that norms its input; its weights' names."""

    def __init__(
        self, input_size: int, output_size: int, *, config: TransformerConfig, **rest: Any
    ):
        super().__init__(input_size, output_size, config=config, **rest)
        self.layer_norm_weight = torch.nn.Parameter(torch.ones(input_size))
        self.epsilon = config.layernorm_epsilon
        self.in_features, self.out_features, self.tp_size = input_size, output_size, 1
        self.return_layernorm_output = False  # as transformer-engine's, for adapters

    def forward(self, x: torch.Tensor, **rest: Any) -> tuple[Any, torch.Tensor | None]:
        """Output, where asked for with what went into the matrix, and absent bias."""
        normed = F.rms_norm(x, x.shape[-1:], self.layer_norm_weight, self.epsilon)
        output, bias = super().forward(normed, **rest)
        return ((output, normed) if self.return_layernorm_output else output), bias


class DuplicatedLinear(torch.nn.Linear):
    """In place of transformer-engine's linear layer, for the latent projections."""

    tensor_model_parallel = False  # which Megatron-Bridge asks of a class it does not know

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

    def get_states(self) -> dict:
        """None of its own."""
        return {}


def begin(device: str) -> None:
    """Let megatron-core build models in this process, on a "cpu" or "cuda"."""
    stand_in(device)
    torch.distributed.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        store=torch.distributed.HashStore(),
        rank=0,
        world_size=1,
    )
    parallel_state.initialize_model_parallel()


def stand_in(device: str) -> None:
    """Give megatron-core what it takes from transformer-engine, and on a "cpu" from CUDA."""
    if device == "cpu":
        torch.cuda.current_device = lambda: torch.device("cpu")
    random._CUDA_RNG_STATE_TRACKER = OneGenerator()
    random._CUDA_RNG_STATE_TRACKER_INITIALIZED = True
    hybrid_block.TENorm = WrappedTorchNorm
    moe_layer.HAVE_TE = True
    moe_layer.TELinear = DuplicatedLinear


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
        moe_router_bias_update_rate=moe["bias_update_rate"],
        moe_router_load_balancing_type="seq_aux_loss",
        moe_aux_loss_coeff=moe["aux_loss"],
        moe_router_dtype="fp32",
        mtp_num_layers=mtp["depths"] if mtp else None,
        mtp_use_repeated_layer=bool(mtp),
        mtp_loss_scaling_factor=mtp["loss_scale"] if mtp else None,
        calculate_per_token_loss=True,
        init_method_std=model["init_std"],
        layernorm_epsilon=model["norm_epsilon"],
        normalization="RMSNorm",
        activation_func=squared_relu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        is_hybrid_model=True,
        **ON_CPU,
    )


def stack_spec() -> ModuleSpec:
    """The hybrid stack of torch's own layers; upstream's is of transformer-engine's.

    The norms before attention and Mamba are parts of the linear layers behind them, as upstream.
    """
    mixer = ModuleSpec(
        MambaMixer,
        submodules=MambaMixerSubmodules(
            in_proj=LayerNormColumnParallelLinear, out_proj=RowParallelLinear
        ),
    )
    attention = ModuleSpec(
        SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=LayerNormColumnParallelLinear,
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
                submodules=MambaLayerSubmodules(mixer=mixer, mamba_bda=get_bias_dropout_add),
            ),
            attention_layer=ModuleSpec(
                TransformerLayer,
                submodules=TransformerLayerSubmodules(
                    self_attention=attention, self_attn_bda=get_bias_dropout_add
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


def causal(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions of tokens [batch, length], and the mask of what lies ahead of each."""
    length = tokens.shape[1]
    positions = torch.arange(length, device=tokens.device).expand_as(tokens)
    ahead = torch.ones(1, 1, length, length, dtype=torch.bool, device=tokens.device)
    return positions, ahead.triu(1)


def logits(network: HybridModel, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits [batch, length, vocabulary] of the model (`main`) and of each depth (`mtp1`, ...).

    A depth reads past the end of the sequence at its last positions.
    """
    positions, future = causal(tokens)
    hidden = network.decoder(network.embedding(tokens, positions), attention_mask=future)
    names = ["main"]
    if network.mtp_process:
        hidden = network.mtp(tokens, positions, hidden, future, embedding=network.embedding)
        names += [f"mtp{depth}" for depth in range(1, network.config.mtp_num_layers + 1)]
    outputs, _ = network.output_layer(hidden)
    parts = outputs.transpose(0, 1).chunk(len(names), dim=1)
    return {name: part.contiguous() for name, part in zip(names, parts, strict=True)}
