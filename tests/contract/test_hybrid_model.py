"""The local model is the recipe's architecture: one training step beside megatron-core's model.

megatron-core draws the weights, Megatron-Bridge's own export says what each is called on the hub,
the local engine loads the result, and both do one step on the same batch; two environments' worth
of code, joined by files. The routers' auxiliary loss is off, since the local engine has none.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from megatron.bridge.models.nemotronh.nemotron_h_bridge import NemotronHBridge
from safetensors.torch import load_file, save_file

from nemoflow.config import Config
from nemoflow.files import read_json, write_json
from nemoflow.hub import hub_config

CONTRACT = Path(__file__).parent
ROOT = CONTRACT.parents[1]
LOGITS = 1e-4  # largest difference, of logits whose standard deviation is above 1, in float32
GRADIENTS = 1e-3  # of a gradient, as a share of the largest in its tensor
UPDATED = 1e-4  # of a weight after the step
BIAS_RATE = 1e-3  # the recipes' step of an expert's bias

Tensors = dict[str, torch.Tensor]

RUNS = Config(ROOT / "config")
SUPER_TINY = RUNS.run("super3-tiny").pretrain.model.model_dump()
SUPER_TINY["init_std"] = 0.1  # larger than in training, for logits of order 1
NARROW = {
    "init_std": 0.2,
    "hidden_size": 32,
    "attention": {"heads": 2, "kv_heads": 1, "head_dim": 16},
    "mamba": SUPER_TINY["mamba"]
    | {"heads": 4, "head_dim": 8, "groups": 2, "state": 8, "chunk": 16},
    "moe": SUPER_TINY["moe"] | {"experts": 4, "ffn": 32, "shared_ffn": 32, "latent": 16},
}


def narrow(run: str) -> dict:
    """A recipe's own pattern of layers and MTP, in a model of small widths."""
    recipe = RUNS.run(run).pretrain.model.model_dump()
    latent = NARROW["moe"]["latent"] if recipe["moe"]["latent"] else None
    kept = {key: recipe[key] for key in ("pattern", "layers", "mtp")}
    return SUPER_TINY | NARROW | kept | {"moe": NARROW["moe"] | {"latent": latent}}


MODELS = {
    "super-tiny": SUPER_TINY,
    "nano-tiny": SUPER_TINY | {"moe": SUPER_TINY["moe"] | {"latent": None}, "mtp": None},
    "super3": narrow("super3"),
    "nano3": narrow("nano3"),
}
OPTIMIZER = {
    "rate": 4.5e-4,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "weight_decay": 1.0,  # ten times the recipes', so that what decays is seen
    "clip": 1.0,
}
# Pairs of super-tiny's weights of equal shape; a mapping that confuses them must be noticed.
CONFUSED = {
    "keys and values": (
        "backbone.layers.3.mixer.k_proj.weight",
        "backbone.layers.3.mixer.v_proj.weight",
    ),
    "queries and output": (
        "backbone.layers.3.mixer.q_proj.weight",
        "backbone.layers.3.mixer.o_proj.weight",
    ),
    "A and D": ("backbone.layers.0.mixer.A_log", "backbone.layers.0.mixer.D"),
    "latent projections of two layers": (
        "backbone.layers.1.mixer.fc1_latent_proj.weight",
        "backbone.layers.4.mixer.fc1_latent_proj.weight",
    ),
    "two experts": (
        "backbone.layers.1.mixer.experts.0.up_proj.weight",
        "backbone.layers.1.mixer.experts.1.up_proj.weight",
    ),
    "norms of the prediction depth": ("mtp.layers.0.enorm.weight", "mtp.layers.0.hnorm.weight"),
}


def run(python: Path | str, script: str, folders: list[Path]) -> None:
    """Run one side of the comparison in a process of its own."""
    done = subprocess.run(
        [python, "-W", "ignore", CONTRACT / script, *folders],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def confuse(whole: Path, folder: Path, pair: tuple[str, str]) -> None:
    """The same model with two of its weights in each other's place."""
    weights = load_file(whole / "model.safetensors")
    first, second = pair
    assert weights[first].shape == weights[second].shape
    weights[first], weights[second] = weights[second], weights[first]
    save_file(weights, folder / "model.safetensors")
    for name in ("model.json", "tokens.safetensors"):
        (folder / name).write_bytes((whole / name).read_bytes())


@pytest.fixture(scope="module")
def steps(tmp_path_factory, main_python) -> dict[str, Path]:
    """Of each model, and each confusion, the folder of what both sides made of it."""
    folders = {name: tmp_path_factory.mktemp("model") for name in (*MODELS, *CONFUSED)}
    tokens = torch.randint(SUPER_TINY["vocab_size"], (2, 81), generator=torch.manual_seed(7))
    for name, model in MODELS.items():
        write_json(folders[name] / "model.json", model)
        write_json(folders[name] / "optimizer.json", OPTIMIZER)
        save_file({"tokens": tokens}, folders[name] / "tokens.safetensors")
    run(sys.executable, "megatron_side.py", [folders[name] for name in MODELS])
    for name, pair in CONFUSED.items():
        confuse(folders["super-tiny"], folders[name], pair)
    run(main_python, "local_side.py", list(folders.values()))
    return folders


@pytest.fixture
def sides(request, steps) -> tuple[Tensors, Tensors]:
    """The local engine's and megatron-core's step of the model that a test is told."""
    folder = steps[request.param]
    return load_file(folder / "local.safetensors"), load_file(folder / "megatron.safetensors")


each_model = pytest.mark.parametrize("sides", MODELS, indirect=True)


def part(made: Tensors, name: str) -> Tensors:
    """The tensors `name/…` of a side."""
    return {k.removeprefix(f"{name}/"): v for k, v in made.items() if k.startswith(f"{name}/")}


def difference(ours: Tensors, theirs: Tensors) -> float:
    """The largest difference of any logit; a depth's last positions read past the end."""
    return max(
        float((logits - theirs[head][:, : logits.shape[1]]).abs().max())
        for head, logits in ours.items()
    )


@each_model
def test_logits(sides):
    """Equal logits, of the model and of its MTP head, over several chunks of the scan."""
    ours, theirs = (part(made, "logits") for made in sides)
    assert list(ours) == list(theirs)
    for head, logits in theirs.items():
        assert logits.std() > 1, f"{head}: logits too small to tell one model from another"
    assert difference(ours, theirs) < LOGITS


@each_model
def test_router_choices(sides):
    ours, theirs = (part(made, "choices") for made in sides)
    assert ours.keys() == theirs.keys() and len(ours) >= 2
    for gate, chosen in ours.items():
        assert torch.equal(chosen, theirs[gate][:, : chosen.shape[1]]), gate


@each_model
def test_losses_and_gradients(sides):
    ours, theirs = sides
    for name, loss in part(theirs, "loss").items():
        assert abs(float(ours[f"loss/{name}"] / loss) - 1) < GRADIENTS, name
    assert abs(float(ours["norm"] / theirs["norm"]) - 1) < GRADIENTS
    found, expected = (part(made, "gradients") for made in sides)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        largest = gradient.abs().max()
        assert (found[name] - gradient).abs().max() <= GRADIENTS * largest, name


@each_model
def test_one_step_of_the_optimizer(sides):
    """megatron-core's AdamW, clipping and rule of decay; the experts' biases move too."""
    ours, theirs = (part(made, "updated") for made in sides)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        # Of a depth's router megatron-core counts the last positions too, past the sequence's end.
        counts_more = name.startswith("mtp.") and name.endswith("correction_bias")
        most = 2 * BIAS_RATE + UPDATED if counts_more else UPDATED
        assert (ours[name] - weight).abs().max() < most, name


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_mapped_once_both_ways(name, steps):
    told = read_json(steps[name] / "mapped.json")
    assert told["elements"] == told["exported"]
    assert not told["changed"], "not the same after hub names and back"
    others = [
        name for name in told["drawn_alike"] if not re.search("conv1d_bias|expert_bias", name)
    ]
    assert not others, "a weight that is drawn alike twice proves nothing"
    hub = load_file(steps[name] / "model.safetensors")
    again = load_file(steps[name] / "again.safetensors")
    assert hub.keys() == again.keys()
    assert all(torch.equal(weight, again[key]) for key, weight in hub.items())


def test_experts_have_one_name_grouped_or_not():
    """On a cluster transformer-engine holds a layer's experts in one module, weight0, weight1, …"""
    bridge = NemotronHBridge()
    bridge.hf_config = SimpleNamespace(**hub_config(SUPER_TINY))
    table = bridge.mapping_registry()
    for layer in ("decoder.layers.1", "mtp.layers.0.mtp_model_layer.layers.1"):
        for linear in ("linear_fc1", "linear_fc2"):
            grouped = f"{layer}.mlp.experts.{linear}.weight3"
            alone = f"{layer}.mlp.experts.local_experts.3.{linear}.weight"
            found = [table.megatron_to_hf_lookup(name).hf_param for name in (grouped, alone)]
            assert found[0] == found[1] and ".experts.3." in found[0]


@pytest.mark.parametrize("name", CONFUSED)
def test_a_confused_mapping_is_noticed(name, steps):
    theirs = load_file(steps["super-tiny"] / "megatron.safetensors")
    ours = load_file(steps[name] / "local.safetensors")
    assert difference(part(ours, "logits"), part(theirs, "logits")) > 100 * LOGITS
