"""Mamba-2's two CUDA kernels by their definition, under the names that megatron-core imports.

Deliberately not the chunked algorithm of transformers and mamba-ssm: one step per token, so that
an error in the passing of states between chunks cannot hide in both.
"""

import sys
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GatedRMSNorm(nn.Module):
    """RMSNorm by groups of `group_size` channels, of `x` gated by silu(`z`) beforehand."""

    def __init__(
        self,
        hidden_size: int,
        eps: float,
        group_size: int,
        norm_before_gate: bool,
        device: torch.device,
        dtype: torch.dtype,
    ):
        super().__init__()
        assert not norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.eps = eps
        self.group_size = group_size

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """`x`, `z` and the result: [..., hidden_size]."""
        groups = (x * F.silu(z)).unflatten(-1, (-1, self.group_size))
        return F.rms_norm(groups, (self.group_size,), eps=self.eps).flatten(-2) * self.weight


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor,
    dt_bias: Tensor,
    **unused: Any,
) -> Tensor:
    """The selective state space recurrence (Mamba-2, arXiv 2405.21060, equation 2).

    `x` and the result: [batch, length, heads, head_dim]; `dt`: [batch, length, heads]; `A`, `D`,
    `dt_bias`: [heads]; `B`, `C`: [batch, length, groups, state].
    """
    heads_per_group = x.shape[2] // B.shape[2]
    B, C = (matrix.repeat_interleave(heads_per_group, dim=2) for matrix in (B, C))
    dt = F.softplus(dt + dt_bias)
    state = x.new_zeros(*x[:, 0].shape, B.shape[-1])
    outputs = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        update = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
        state = decay * state + update
        outputs.append(torch.einsum("bhpn,bhn->bhp", state, C[:, t]))
    return torch.stack(outputs, dim=1) + D[:, None] * x


def install() -> None:
    """Let `mamba_ssm`'s kernels be imported; call before megatron-core's mamba_mixer is."""
    kernels = {
        "layernorm_gated": {"RMSNorm": GatedRMSNorm},
        "ssd_combined": {
            "mamba_chunk_scan_combined": scan,
            "mamba_split_conv1d_scan_combined": scan,  # imported, and called on a GPU only
        },
    }
    for name, members in kernels.items():
        module = types.ModuleType(f"mamba_ssm.ops.triton.{name}")
        vars(module).update(members)
        sys.modules[module.__name__] = module
