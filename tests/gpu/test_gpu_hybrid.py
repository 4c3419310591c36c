"""The 7-layer Super pattern in megatron-core, its Mamba layers by mamba_ssm's Triton kernels."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemoflow.files import read_json, write_json

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-2  # of logits whose standard deviation is above 1
MODEL = {
    "pattern": "MEME*ME",
    "layers": 7,
    "hidden_size": 128,
    "vocab_size": 512,
    "init_std": 0.1,  # larger than in training, for logits of order 1
    "norm_epsilon": 1e-5,
    "max_positions": 1024,
    "attention": {"heads": 4, "kv_heads": 2, "head_dim": 32},
    "mamba": {"heads": 4, "head_dim": 32, "state": 16, "groups": 1},
    "moe": {
        "experts": 8,
        "experts_per_token": 2,
        "ffn": 128,
        "shared_ffn": 256,
        "latent": 64,
        "scaling": 2.5,
        "bias_update_rate": 1e-3,
        "aux_loss": 0.0,
    },
    "mtp": {"pattern": "*E", "depths": 1, "loss_scale": 0.1},
}
LENGTH = 300  # three chunks of megatron-core's scan
STEPS = {"cuda": 20, "cpu": 3, "interpreter": 2}


def run(kernels: str, steps: int, folder: Path) -> None:
    """Run the model in a process of its own; megatron-core keeps the first kernels it finds."""
    path = os.pathsep.join([str(ROOT / "workflow"), os.environ.get("PYTHONPATH", "")])
    script = Path(__file__).with_name("hybrid_training.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, kernels, str(steps), folder],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_triton_kernels_give_the_cpus_logits_and_train(kernels, tmp_path):
    for package in ("megatron.core", "triton", "mamba_ssm"):
        if kernels != "cpu" or package == "megatron.core":
            try:
                found = importlib.util.find_spec(package)
            except ModuleNotFoundError:
                found = None
            if found is None:
                pytest.skip(f"needs {package}: see tests/gpu/conftest.py")
    write_json(tmp_path / "model.json", MODEL)
    tokens = torch.randint(MODEL["vocab_size"], (2, LENGTH), generator=torch.manual_seed(7))
    save_file({"tokens": tokens}, tmp_path / "tokens.safetensors")
    run("reference", 0, tmp_path)
    run(kernels, STEPS[kernels], tmp_path)
    expected = load_file(tmp_path / "reference_logits.safetensors")
    for head, logits in load_file(tmp_path / f"{kernels}_logits.safetensors").items():
        assert expected[head].std() > 1, "logits too small to tell one model from another"
        assert (logits - expected[head]).abs().max() < TOLERANCE, head
    losses = read_json(tmp_path / f"{kernels}_losses.json")
    assert len(losses) == STEPS[kernels] and losses[-1] < 0.85 * losses[0], losses
