"""Hugging Face models and Megatron's checkpoints, by Megatron-Bridge's conversion, on the CPU.

Each way takes the memory of the whole model once: 250 GB for 120B parameters in bfloat16. Weights
are loaded after Megatron-Bridge has made the model bfloat16, as `AutoBridge.import_ckpt` does not:
it would round the experts' biases, which are float32 in either format.
"""

import gc
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.bridge import AutoBridge
from megatron.bridge.training.model_load_save import temporary_distributed_context
from transformers import AutoConfig, AutoModelForCausalLM

from nemoflow import checkpoint, ranks
from nemoflow.engines import parity
from nemoflow.files import write_json
from nemoflow.progress import say
from nemoflow.torch_dist import check, iteration_folder

Model = list[torch.nn.Module]  # as Megatron-Bridge has one: a module per pipeline stage
SPARE = 1.3  # times a model's bytes that its logits may need of a GPU
UNANSWERED = {"skipped": "Megatron answers on a GPU alone, and none here has room for the model"}
REFUSALS = (RuntimeError, AssertionError, ValueError, TypeError, ImportError)


def take(job: dict[str, Any]) -> int:
    """Make an imported model what training starts from; the exit code.

    Leaves {progress}/final/ (a Megatron checkpoint of iteration 0, without optimizer) and
    {progress}/parity.json. `inputs`: model, a folder in Hugging Face format. The first process
    works alone.

    Raises:
        UserError: the model does not come back from the checkpoint as it was.
    """
    if ranks.place()[0]:
        return 0
    source, progress = Path(job["inputs"]["model"]), Path(job["progress"])
    final, folder = progress / "final", progress / ".final.tmp"
    for leftover in (final, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    bridge = bridge_of(source)
    with temporary_distributed_context(backend="gloo"):
        model = loaded(bridge, source)
        save = bridge.save_megatron_model
        frees = "low_memory_save" in inspect.signature(save).parameters  # not in every release
        save(model, folder, **({"low_memory_save": True} if frees else {}))
        del model
        gc.collect()
        iteration = iteration_folder(folder)
        check(iteration)
        model = bridge.load_megatron_model(iteration, wrap_with_ddp=False)
        found = examine(bridge, model, source)
    write_json(progress / "parity.json", parity.verdict(found))
    checkpoint.sync_tree(folder)
    folder.rename(final)
    return 0


def bridge_of(folder: Path) -> AutoBridge:
    """Megatron-Bridge's converter for a folder's config.json, from which all names follow.

    Of a bridge made from the folder itself, Megatron-Bridge wants its weights, even to export.
    """
    config = AutoConfig.from_pretrained(folder)
    config.name_or_path = ""  # no checkpoint names where the model lay
    return AutoBridge.from_hf_config(config)


def loaded(bridge: AutoBridge, folder: Path) -> Model:
    """A Megatron model with the weights of a Hugging Face folder."""
    model = bridge.to_megatron_model(
        load_weights=False, wrap_with_ddp=False, use_cpu_initialization=True
    )
    bridge.load_hf_weights(model, folder)
    return model


def exported(bridge: AutoBridge, model: Model) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's weights under the hub's names, one by one; adapters merged into theirs."""
    yield from bridge.export_hf_weights(model, cpu=True, show_progress=False)


def examine(bridge: AutoBridge, model: Model, folder: Path) -> dict[str, Any]:
    """How a model that came from a Hugging Face folder leaves Megatron again, and its logits."""
    weights = parity.in_types_of(folder, exported(bridge, model))
    found, ours = parity.round_trip(folder, weights), answer(model, folder)
    return found | {"logits": UNANSWERED if ours is None else compared(ours, folder)}


def fits(folder: Path) -> bool:
    """Whether there is a GPU with room for a Hugging Face folder's model."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return torch.cuda.is_available() and SPARE * size < torch.cuda.mem_get_info()[0]


def answer(model: Model, folder: Path) -> torch.Tensor | None:
    """A model's logits [2, length, vocabulary] on `parity.probe`, by a GPU; None where none can."""
    if not fits(folder):
        return None
    network = model[0].cuda().eval()
    try:
        return forward(network, probe(folder).cuda()).float().cpu()
    except REFUSALS as error:
        say(f"{folder}: Megatron does not answer here: {error}")
        return None
    finally:
        network.cpu()


def probe(folder: Path) -> torch.Tensor:
    """Token ids for a folder's model."""
    return parity.probe(AutoConfig.from_pretrained(folder).vocab_size)


@torch.no_grad()
def forward(network: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """A Megatron model's logits of tokens [batch, length]; its attention is causal by itself."""
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    return network(tokens, positions, None, runtime_gather_output=True)


@torch.no_grad()
def compared(ours: torch.Tensor, folder: Path) -> dict[str, Any]:
    """Megatron's logits beside those of plain transformers, on the same GPU."""
    try:
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").cuda().eval()
        theirs = plain(probe(folder).cuda()).logits.float().cpu()
    except REFUSALS as error:
        return {"skipped": f"transformers does not answer here: {error}"}
    return parity.logits(ours, theirs)
