"""Import this first: Megatron-Bridge and megatron-core's HybridModel in one process, on a CPU.

megatron-core must find transformer-engine absent when it is imported, and builds layers of torch's
own then; Megatron-Bridge, imported after it, must find it present.
"""

import os
import queue
from types import SimpleNamespace
from typing import Any

import mamba_reference
import torch
from torch.overrides import TorchFunctionMode

from nemoflow.engines.megatron import stubs

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # megatron-core compiles its small functions
os.environ["HF_HUB_OFFLINE"] = "1"
stubs.install(["triton"])
mamba_reference.install()

import hybrid_model  # noqa: E402, F401
from megatron.core.dist_checkpointing.strategies import filesystem_async  # noqa: E402

stubs.install()
torch.cuda.current_stream = lambda *_: SimpleNamespace()
torch.cuda.get_rng_state = torch.get_rng_state
torch.cuda.synchronize = lambda *_: None
filesystem_async._results_queue = queue.Queue()  # the real one is a process of its own
filesystem_async._process_memory = lambda: 0  # it asks psutil, for its log alone


class CpuForCuda(TorchFunctionMode):
    """Lets megatron-core's optimizer, which names "cuda" itself, work on CPU tensors."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), keywords: dict | None = None
    ) -> Any:
        keywords = keywords or {}
        if keywords.get("device") == "cuda":
            keywords["device"] = "cpu"
        result = function(*args, **keywords)
        asked_type = function is torch.Tensor.type and isinstance(result, str)
        return result.replace("torch.", "torch.cuda.") if asked_type else result
