"""The megatron engine's own conversions, on a small model: import, export, adapters, mean.

    python conversions.py FOLDER

FOLDER has a folder of each dtype with model.json and tokenizer/. Megatron-Bridge, megatron-core and
its checkpoints are the real ones; the layers of transformer-engine are torch's (`hybrid_model`).
What became of the model is left in the folders; told.json there says what only this process sees.
"""

import megatron_cpu

# isort: split
import sys
from pathlib import Path
from typing import Any

import hybrid_model
import torch
from megatron.bridge.models.hybrid.hybrid_provider import HybridModelProvider
from megatron.bridge.peft import utils as peft
from megatron.bridge.peft.lora import LoRA
from megatron.bridge.training import checkpointing
from megatron.bridge.training.model_load_save import temporary_distributed_context
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing import ShardedTensor
from safetensors.torch import save_file

from nemoflow.engines import hub_folder, parity
from nemoflow.engines.megatron import conversion
from nemoflow.engines.megatron.export import export
from nemoflow.engines.megatron.merge import merge
from nemoflow.files import read_json, write_json
from nemoflow.hub import hub_config

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}
TARGETS = ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2", "in_proj", "out_proj"]
STEPS = (100, 200, 300)
finalize = HybridModelProvider.finalize


def finalize_on_cpu(self: HybridModelProvider) -> None:
    """The provider's own checks, of a model of torch's own layers."""
    for field, value in hybrid_model.ON_CPU.items():
        setattr(self, field, value)
    finalize(self)


def job(task: str, progress: Path, config: dict, **inputs: Any) -> dict[str, Any]:
    """A job.json of an engine."""
    inputs = {
        name: value if name == "checkpoints" else str(value) for name, value in inputs.items()
    }
    progress.mkdir()
    return {"task": task, "config": config, "inputs": inputs, "progress": str(progress)}


def draw(folder: Path, model: dict[str, Any]) -> None:
    """A Hugging Face folder `source` of random weights in the dtype that the folder is named by."""
    source, dtype = folder / "source", folder.name
    source.mkdir()
    write_json(source / "config.json", hub_config(model, dtype))
    with temporary_distributed_context(backend="gloo"), torch.no_grad():
        network = hybrid_model.build(model)
        weights = conversion.exported(conversion.bridge_of(source), [network])
        cast = {name: tensor.clone() for name, tensor in hub_folder.cast(weights, dtype)}
    save_file(cast, source / "model.safetensors")


def adapt(folder: Path, model: dict[str, Any], tokens: torch.Tensor) -> torch.Tensor:
    """A checkpoint of random adapters on the imported model; the adapted model's logits."""
    bridge = conversion.bridge_of(folder / "source")
    scheme = LoRA(dim=LORA["rank"], alpha=LORA["alpha"], target_modules=list(TARGETS))
    iteration = folder / "adapters" / "iter_0000020"
    iteration.mkdir(parents=True)
    with temporary_distributed_context(backend="gloo"):
        network = bridge.load_megatron_model(folder / "import" / "final", wrap_with_ddp=False)
        scheme(network, training=True)
        scheme.set_params_to_save(network)
        for name, parameter in network[0].named_parameters():
            if ".adapter." in name:
                parameter.data.normal_(std=0.05)
        state = checkpointing._generate_model_state_dict(network, {})
        state = checkpointing.apply_peft_adapter_filter_to_state_dict(state, scheme)
        dist_checkpointing.save(state, str(iteration), content_metadata={})
        logits = conversion.forward(network[0].eval(), tokens)
    told = f"{{peft: {{_target_: {LoRA.__module__}.LoRA, dim: 4, alpha: 8}}, model: {{}}}}"
    (iteration / "run_config.yaml").write_text(told)
    (folder / "adapters" / "latest_checkpointed_iteration.txt").write_text("20")
    return logits


def answer(folder: Path, name: str, tokens: torch.Tensor) -> torch.Tensor:
    """The logits of a folder's Hugging Face model, in Megatron."""
    bridge = conversion.bridge_of(folder / name)
    with temporary_distributed_context(backend="gloo"):
        return conversion.forward(conversion.loaded(bridge, folder / name)[0].eval(), tokens)


def train(folder: Path) -> list[str]:
    """Checkpoints of a training: the imported weights, noise, and something of an optimizer."""
    bridge, made = conversion.bridge_of(folder / "source"), []
    with temporary_distributed_context(backend="gloo"):
        network = bridge.load_megatron_model(folder / "import" / "final", wrap_with_ddp=False)
        for step in STEPS:
            place = folder / f"step_{step:07d}" / f"iter_{step:07d}"
            place.mkdir(parents=True)
            for parameter in network[0].parameters():
                parameter.data += 0.01 * torch.randn_like(parameter)
            state = checkpointing._generate_model_state_dict(network, {})
            moment = ShardedTensor.from_rank_offsets("optimizer.state.exp_avg.x", torch.ones(4))
            dist_checkpointing.save(state | {"optimizer": moment}, str(place), content_metadata={})
            source = folder / "import" / "final" / "iter_0000000"
            for name in ("run_config.yaml", "train_state.pt"):
                (place / name).write_bytes((source / name).read_bytes())
            (place.parent / "latest_checkpointed_iteration.txt").write_text(str(step))
            write_json(place.parent / "state.json", {"step": step})
            weights = {k: v for k, v in network[0].state_dict().items() if hasattr(v, "dtype")}
            save_file({k: v.clone() for k, v in weights.items()}, place.parent / "weights")
            made.append(str(place.parent))
    return made


def answer_on_cpu() -> None:
    """Let the engine compare logits, as it does where a GPU has room, on the CPU."""
    conversion.fits = lambda folder: True
    torch.nn.Module.cuda = torch.Tensor.cuda = lambda self, *_: self


def main() -> None:
    """Convert the model of each dtype there and back, and one with adapters and over time."""
    hybrid_model.stand_in("cpu")
    peft.TECL = (hybrid_model.LayerNormColumnParallelLinear,)
    peft.TELayerNormColumnParallelLinear = hybrid_model.LayerNormColumnParallelLinear
    peft.TERL, peft.TELinear = (), hybrid_model.DuplicatedLinear
    HybridModelProvider.finalize = finalize_on_cpu
    HybridModelProvider._resolve_hybrid_stack_spec = lambda self: hybrid_model.stack_spec()
    for folder in (Path(sys.argv[1]) / dtype for dtype in ("bfloat16", "float32")):
        torch.manual_seed(1234)
        if folder.name == "float32":
            answer_on_cpu()
        model = read_json(folder / "model.json")
        config = {"dtype": folder.name, "model": model}
        draw(folder, model)
        conversion.take(job("import", folder / "import", config, model=folder / "source"))
        base, tokenizer = folder / "import" / "final", folder / "tokenizer"
        export(job("export", folder / "export", config, checkpoint=base, tokenizer=tokenizer))
    tokens = parity.probe(model["vocab_size"])
    adapted = adapt(folder, model, tokens)
    config |= {"lora": LORA | {"targets": TARGETS}}
    inputs = {"checkpoint": folder / "adapters", "base": base, "tokenizer": tokenizer}
    export(job("export", folder / "merged", config, **inputs))
    merged = answer(folder, "merged/final", tokens)
    moved = (answer(folder, "source", tokens) - merged).abs().max()
    told = {"adapters": float((adapted - merged).abs().max()), "moved": float(moved)}
    write_json(folder / "told.json", told)
    merge(job("merge", folder / "mean", config, checkpoints=train(folder)))
    bridge = conversion.bridge_of(folder / "source")
    with temporary_distributed_context(backend="gloo"):
        mean = bridge.load_megatron_model(folder / "mean" / "final", wrap_with_ddp=False)[0]
        weights = {k: v for k, v in mean.state_dict().items() if hasattr(v, "dtype")}
        save_file({k: v.clone() for k, v in weights.items()}, folder / "mean" / "weights")


if __name__ == "__main__":
    with megatron_cpu.CpuForCuda():
        main()
