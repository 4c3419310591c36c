"""megatron-core's own HybridModel doing one training step, told in the hub's names.

    python megatron_side.py FOLDER...

reads model.json (a config's model section), optimizer.json (its optimizer section and `rate`) and
tokens.safetensors from each FOLDER. It writes model.safetensors and config.json there (the drawn
weights, by Megatron-Bridge's export), megatron.safetensors (what the step computes, see `step`) and
mapped.json (what became of each weight's name). A process of its own: see
`megatron_cpu`.
"""

import megatron_cpu

# isort: split
import sys
from pathlib import Path
from typing import Any

import hybrid_model
import torch
from megatron.bridge import AutoBridge
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.multi_token_prediction import MTPLossLoggingHelper
from safetensors.torch import load_file, save_file

from nemoflow.engines.megatron.conversion import bridge_of
from nemoflow.files import read_json, write_json
from nemoflow.hub import hub_config

Tensors = dict[str, torch.Tensor]


def exported(bridge: AutoBridge, network: torch.nn.Module) -> Tensors:
    """A network's weights as Megatron-Bridge exports them; none twice."""
    weights: Tensors = {}
    for name, tensor in bridge.export_hf_weights([network], cpu=True, show_progress=False):
        assert name not in weights, name
        weights[name] = tensor.detach().clone()
    return weights


def own_weights(network: torch.nn.Module) -> Tensors:
    """A network's weights and buffers under megatron-core's names."""
    return {k: v for k, v in network.state_dict().items() if isinstance(v, torch.Tensor)}


def gradients(bridge: AutoBridge, network: torch.nn.Module) -> Tensors:
    """The gradients in the hub's names: exported as if they were the weights."""
    weights = {name: parameter.data for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.data = parameter.main_grad.clone()
    found = exported(bridge, network)
    for name, parameter in network.named_parameters():
        parameter.data = weights[name]
    return {name: g for name, g in found.items() if not name.endswith("correction_bias")}


def watch(bridge: AutoBridge, network: torch.nn.Module) -> Tensors:
    """What each router chooses from now on, by call: experts in order [batch, length, top k]."""
    bridge._model_bridge.hf_config = bridge.hf_pretrained
    table = bridge._model_bridge.mapping_registry()
    chosen: Tensors = {}

    def watch_one(name: str, router: TopKRouter) -> None:
        gate = table.megatron_to_hf_lookup(f"{name}.weight").hf_param.removesuffix(".weight")
        calls: list[int] = []

        def note(_: Any, inputs: tuple, outputs: tuple) -> None:
            length, batch = inputs[0].shape[:2]
            mask = outputs[1].reshape(length, batch, -1).transpose(0, 1)
            indices = torch.where(mask)[2].reshape(batch, length, -1)
            chosen[f"choices/{gate}/{len(calls)}"] = indices
            calls.append(1)

        router.register_forward_hook(note)

    for name, router in network.named_modules():
        if isinstance(router, TopKRouter):
            watch_one(name, router)
    return chosen


def optimizer_of(network: DistributedDataParallel, told: dict[str, Any]) -> Any:
    """megatron-core's AdamW at a constant rate; its scheduler applies its rule of what decays."""
    rate, decay = told["rate"], told["weight_decay"]
    config = OptimizerConfig(
        optimizer="adam",
        lr=rate,
        weight_decay=decay,
        adam_beta1=told["beta1"],
        adam_beta2=told["beta2"],
        adam_eps=told["epsilon"],
        clip_grad=told["clip"],
        use_distributed_optimizer=False,
    )
    optimizer = get_megatron_optimizer(config, [network])
    OptimizerParamScheduler(
        optimizer, rate, rate, rate, 0, 1, "constant", decay, decay, 1, "constant"
    )
    return optimizer


def step(folder: Path, bridge: AutoBridge, network: torch.nn.Module) -> Tensors:
    """One training step: logits, choices, losses, gradients and norm, and the updated weights.

    The loss is as Megatron-Bridge's forward step has it: the sum over tokens, of which the
    gradients are divided by their number, and MTP's gradients joined to it on the way back.
    """
    tokens = load_file(folder / "tokens.safetensors")["tokens"]
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    with torch.no_grad():
        heads = hybrid_model.logits(network, inputs)
    made = {f"logits/{head}": logits for head, logits in heads.items()}
    config = DistributedDataParallelConfig(grad_reduce_in_fp32=True)
    parallel = DistributedDataParallel(network.config, config, network)
    optimizer = optimizer_of(parallel, read_json(folder / "optimizer.json"))
    parallel.train()
    chosen = watch(bridge, network)
    positions, future = hybrid_model.causal(inputs)
    mask = torch.ones(inputs.shape)
    found = parallel(inputs, positions, future, labels=labels, loss_mask=mask)
    found.sum().backward()
    finalize_model_grads([parallel], mask.sum())
    made |= chosen | {"loss/main": found.detach().mean()}
    if network.config.mtp_num_layers:
        made["loss/mtp"] = MTPLossLoggingHelper.tracker["loss_values"].mean()
        MTPLossLoggingHelper.tracker.clear()
    made |= {f"gradients/{k}": v for k, v in gradients(bridge, network).items()}
    _, norm, _ = optimizer.step()
    made["norm"] = torch.tensor(norm)
    return made | {f"updated/{k}": v for k, v in exported(bridge, network).items()}


def compare_round_trip(folder: Path, bridge: AutoBridge, network: torch.nn.Module) -> dict:
    """What becomes of the weights on the way to the hub's names and back, into other weights."""
    weights = exported(bridge, network)
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors")
    other = hybrid_model.build(read_json(folder / "model.json"))
    before, own = own_weights(other), own_weights(network)
    drawn = [name for name in own if torch.equal(before[name], own[name])]
    bridge.load_hf_weights([other], folder)
    after = own_weights(other)
    return {
        "elements": sum(weight.numel() for weight in own.values()),
        "exported": sum(weight.numel() for weight in weights.values()),
        "drawn_alike": drawn,
        "changed": [name for name in own if not torch.equal(after[name], own[name])],
    }


def main() -> None:
    """Build each folder's model, and write what it computes."""
    hybrid_model.begin("cpu")
    for folder in map(Path, sys.argv[1:]):
        torch.manual_seed(1234)
        model = read_json(folder / "model.json")
        write_json(folder / "config.json", hub_config(model))
        bridge = bridge_of(folder)
        with torch.no_grad():
            network = hybrid_model.build(model)
            write_json(folder / "mapped.json", compare_round_trip(folder, bridge, network))
        with megatron_cpu.CpuForCuda():
            made = step(folder, bridge, network)
        save_file({k: v.contiguous() for k, v in made.items()}, folder / "megatron.safetensors")


if __name__ == "__main__":
    main()
