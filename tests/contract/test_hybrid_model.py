"""The local model is the recipe's architecture: the logits of megatron-core's HybridModel.

megatron-core builds the model with random weights, Megatron-Bridge's own table says what each
weight is called on the hub, the local engine loads the result; three environments' worth of code,
joined by files.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from megatron.bridge.models.conversion.param_mapping import split_qkv_weights
from megatron.bridge.models.nemotronh.nemotron_h_bridge import NemotronHBridge
from safetensors.torch import load_file, save_file

from nemoflow.config import Config
from nemoflow.files import write_json
from nemoflow.hub import hub_config

CONTRACT = Path(__file__).parent
ROOT = CONTRACT.parents[1]
TOLERANCE = 1e-4  # of logits whose standard deviation is above 1, in float32

Logits = dict[str, torch.Tensor]

SUPER_TINY = Config(ROOT / "config").run("super3-tiny").pretrain.model.model_dump()
SUPER_TINY["init_std"] = 0.1  # larger than in training, for logits of order 1
MODELS = {
    "super-tiny": SUPER_TINY,
    "nano-tiny": SUPER_TINY | {"moe": SUPER_TINY["moe"] | {"latent": None}, "mtp": None},
    "two-depths": SUPER_TINY | {"mtp": SUPER_TINY["mtp"] | {"depths": 2}},
    "two-groups": SUPER_TINY | {"mamba": SUPER_TINY["mamba"] | {"heads": 8, "groups": 2}},
}


def hub_weights(weights: dict[str, torch.Tensor], model: dict) -> dict[str, torch.Tensor]:
    """megatron-core's weights under the names that Megatron-Bridge exports them by."""
    bridge = NemotronHBridge()
    bridge.hf_config = SimpleNamespace(**hub_config(model))
    table = bridge.mapping_registry()
    attention = SimpleNamespace(
        num_attention_heads=model["attention"]["heads"],
        num_query_groups=model["attention"]["kv_heads"],
        kv_channels=model["attention"]["head_dim"],
        hidden_size=model["hidden_size"],
    )
    named = {}
    for name, weight in weights.items():
        if name.startswith("mtp."):  # the table knows these norms only as fused into the linear
            name = name.replace(".input_layernorm.", ".self_attention.linear_qkv.layer_norm_")
        hub_name = table.megatron_to_hf_lookup(name).hf_param
        if isinstance(hub_name, str):
            named[hub_name] = weight
        else:
            parts = zip("qkv", split_qkv_weights(attention, weight), strict=True)
            named |= {hub_name[part]: tensor.contiguous() for part, tensor in parts}
    return named


def run(python: Path | str, script: str, folders: list[Path]) -> None:
    """Run one side of the comparison in a process of its own."""
    done = subprocess.run(
        [python, "-W", "ignore", CONTRACT / script, *folders],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def logits(tmp_path_factory, main_python) -> dict[str, tuple[Logits, Logits]]:
    """Of each model: the local engine's logits by head, and megatron-core's."""
    folders = {name: tmp_path_factory.mktemp(name) for name in MODELS}
    tokens = torch.randint(SUPER_TINY["vocab_size"], (2, 80), generator=torch.manual_seed(7))
    for name, folder in folders.items():
        write_json(folder / "model.json", MODELS[name])
        save_file({"tokens": tokens}, folder / "tokens.safetensors")
    run(sys.executable, "hybrid_logits.py", list(folders.values()))
    for name, folder in folders.items():
        weights = hub_weights(load_file(folder / "megatron.safetensors"), MODELS[name])
        save_file(weights, folder / "model.safetensors")
    run(main_python, "local_logits.py", list(folders.values()))
    return {
        name: (
            load_file(folder / "local_logits.safetensors"),
            load_file(folder / "megatron_logits.safetensors"),
        )
        for name, folder in folders.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_logits(name, logits):
    """Equal logits, of the model and of its MTP head, over three chunks of the scan."""
    ours, theirs = logits[name]
    depths = MODELS[name]["mtp"]["depths"] if MODELS[name]["mtp"] else 0
    heads = ["main", *(f"mtp{depth}" for depth in range(1, depths + 1))]
    assert list(ours) == list(theirs) == heads
    for head in ours:
        expected = theirs[head][:, : ours[head].shape[1]]
        assert expected.std() > 1, "logits too small to tell one model from another"
        assert (ours[head] - expected).abs().max() < TOLERANCE, head
