"""Logits and a few steps of training of megatron-core's HybridModel, by one kind of kernels.

    python hybrid_training.py {reference|cpu|cuda|interpreter} STEPS FOLDER

reads model.json (a config's model section) and tokens.safetensors from FOLDER, takes the weights
of megatron.safetensors there, or draws and writes them, and writes {kernels}_logits.safetensors
and {kernels}_losses.json. `reference` and `cpu` compute Mamba by its definition on a CPU, `cuda`
by mamba_ssm's Triton kernels, `interpreter` by these on a CPU.
"""

import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from nemoflow.files import read_json, write_json

CONTRACT = Path(__file__).parents[1] / "contract"


def use_reference() -> None:
    """Mamba by its definition; triton, which megatron-core imports, may be absent."""
    import mamba_reference

    mamba_reference.install()
    if importlib.util.find_spec("triton") is None:
        from nemoflow.engines.megatron import stubs

        stubs.install(["triton"])


def use_triton() -> None:
    """mamba_ssm's Triton kernels, without its __init__, which wants a compiled extension."""
    found = importlib.machinery.PathFinder.find_spec("mamba_ssm")
    package = types.ModuleType("mamba_ssm")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["mamba_ssm"] = package


def use_interpreter() -> None:
    """The same kernels on a CPU; nothing can be timed there, so each takes its first tiling."""
    os.environ["TRITON_INTERPRET"] = "1"
    import triton

    tuned = triton.autotune
    triton.autotune = lambda configs, key, **rest: tuned(configs[:1], key, **rest)
    torch.cuda.device = lambda _: nullcontext()
    torch.cuda.get_device_properties = lambda _: types.SimpleNamespace(multi_processor_count=2)
    use_triton()


USE = {
    "reference": use_reference,
    "cpu": use_reference,
    "cuda": use_triton,
    "interpreter": use_interpreter,
}


def share_weights(network: torch.nn.Module, path: Path) -> None:
    """Take the weights at `path`; where there are none yet, leave this network's."""
    own = {k: v for k, v in network.state_dict().items() if isinstance(v, torch.Tensor)}
    if path.exists():
        theirs = load_file(path)
        assert theirs.keys() == own.keys()
        network.load_state_dict(theirs, strict=False)
    else:
        save_file(own, path)


def train(network: torch.nn.Module, logits: Callable, tokens: torch.Tensor, steps: int) -> list:
    """The losses of some steps on one batch: the next token's, and a depth's at a tenth."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = 0.0
        for ahead, (head, outputs) in enumerate(logits(network, tokens).items(), start=1):
            predicted, expected = outputs[:, :-ahead].flatten(0, 1), tokens[:, ahead:].flatten()
            loss += F.cross_entropy(predicted, expected) * (1.0 if head == "main" else 0.1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def main() -> None:
    """Write what these kernels make of the model in the folder."""
    kernels, steps, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    device = "cuda" if kernels == "cuda" else "cpu"
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # megatron-core compiles its small functions
    os.environ["TRITON_F32_DEFAULT"] = "ieee"  # else Triton multiplies float32 as TF32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    sys.path.insert(0, str(CONTRACT))
    USE[kernels]()
    import hybrid_model

    hybrid_model.begin(device)
    torch.manual_seed(1234)
    with torch.no_grad():
        network = hybrid_model.build(read_json(folder / "model.json")).to(device)
        share_weights(network, folder / "megatron.safetensors")
        tokens = load_file(folder / "tokens.safetensors")["tokens"].to(device)
        outputs = hybrid_model.logits(network, tokens)
    outputs = {head: tensor.cpu() for head, tensor in outputs.items()}
    save_file(outputs, folder / f"{kernels}_logits.safetensors")
    losses = train(network, hybrid_model.logits, tokens, steps)
    write_json(folder / f"{kernels}_losses.json", losses)


if __name__ == "__main__":
    main()
