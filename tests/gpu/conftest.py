"""Tests that need one GPU; `make test-gpu` runs them, and where there is none they are skipped.

`NEMOFLOW_GPU_TESTS=cpu make test-gpu` tries all of them but the kernels on a CPU; with
`NEMOFLOW_GPU_TESTS=interpreter` Triton's interpreter runs the kernels too (minutes; numpy < 2.4).

On a machine with a GPU and no package index: `PYTHONPATH=workflow python3 -m pytest tests/gpu`.
Meant for torch 2.11 (CUDA 13), triton 3.6 and transformers 5.17 or later, on Python 3.12; no GPU
has run them yet.
Bring wheels of megatron-core 0.19.2 (cp312), mamba-ssm 2.3.2.post1 (pure Python: `pip wheel` it
with MAMBA_SKIP_CUDA_BUILD=TRUE and MAMBA_FORCE_BUILD=TRUE), einops, msgspec, pydantic with
pydantic-core, annotated-types and typing-inspection. Not causal-conv1d, nor transformer-engine.
"""

import os

import pytest
import torch


def pytest_collection_modifyitems(items):
    """Every test in this folder needs a GPU."""
    for item in items:
        if item.path.is_relative_to(os.path.dirname(__file__)):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kernels() -> str:
    """Where the tests run: cuda, cpu or interpreter."""
    name = os.environ.get("NEMOFLOW_GPU_TESTS", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"needs a GPU: PyTorch {torch.__version__} finds none")
    return name
