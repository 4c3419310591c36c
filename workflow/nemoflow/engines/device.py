"""Where tensors live: the first GPU that can be seen, else the CPU.

The local engine draws from CPU generators and saves CPU tensors, so either device continues what
the other began. On a CPU the same job ends in the same bytes. On a GPU too, with one kind of GPU
and one release of torch. Between the two, results differ by rounding.
"""

import importlib.metadata
import os
import sys
import warnings

import torch

from nemoflow.errors import UserError
from nemoflow.progress import say

KERNELS = ("mamba_ssm", "causal_conv1d")


def choose() -> torch.device:
    """The device that NEMOFLOW_DEVICE names (cpu, cuda), else a GPU if there is one, else the CPU.

    CUDA_VISIBLE_DEVICES says which GPUs there are, as to every CUDA program. Raises UserError when
    a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    name = os.environ.get("NEMOFLOW_DEVICE") or ("cuda" if available else "cpu")
    if name.startswith("cuda") and not available:
        raise UserError(
            f"NEMOFLOW_DEVICE={name}: PyTorch {torch.__version__} finds no GPU here; unset it, or"
            " set it to cpu"
        )
    device = torch.device(name)
    if device.type == "cuda":
        be_repeatable()
    return device


def be_repeatable() -> None:
    """Let CUDA give the same bits in every run, in full float32.

    NVIDIA's containers switch TF32 on by TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, and cuDNN has it on by
    default. Fused attention sums its gradients in any order. torch warns of what has no
    deterministic form; its warning of cumsum is about one dimension, and Mamba's has several.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message="cumsum_cuda_kernel")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for attention in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{attention}_sdp")(False)


def without_kernels() -> None:
    """Keep transformers to PyTorch's own Mamba; call it before its NemotronH is imported.

    It takes mamba_ssm's kernels wherever they are installed. They refuse CPU tensors, and sum
    their gradients in any order.
    """
    for package in KERNELS:
        sys.modules.setdefault(package, None)


def tell(title: str, device: torch.device) -> None:
    """Say which GPU does the work, if one does, and whose Mamba."""
    if device.type == "cuda":
        used = [f"{name} {version}" for name, version in kernels().items()]
        scan = f"the kernels of {' and '.join(used)}" if used else "PyTorch's own Mamba"
        say(f"{title}: on {torch.cuda.get_device_name(device)}, with {scan}")


def kernels() -> dict[str, str]:
    """The kernel packages that transformers will use, with their versions."""
    found = {}
    for package in KERNELS:
        if sys.modules.get(package, package) is not None:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
    return found
