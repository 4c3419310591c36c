"""Conversions by Megatron-Bridge, run whole on a small model: see `conversions.py`.

Real are AutoBridge, its adapters and checkpoints, megatron-core's model and transformers; what
transformer-engine would compute, torch does.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import small_models
import small_tokenizer
from nemoflow import torch_dist
from nemoflow.engines.megatron.export import iteration_of
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json

CONTRACT = Path(__file__).parent
ROOT = CONTRACT.parents[1]
DTYPES = ("bfloat16", "float32")
MODEL = {
    "pattern": "MEM*EME",
    "layers": 7,
    "hidden_size": 32,
    "vocab_size": 4096,
    "max_positions": 128,
    "init_std": 0.1,
    "norm_epsilon": 1e-5,
    "ffn": None,
    "attention": {"heads": 2, "kv_heads": 1, "head_dim": 16},
    "mamba": {"heads": 2, "head_dim": 16, "state": 16, "groups": 1, "conv": 4, "chunk": 64},
    "moe": {
        "experts": 4,
        "experts_per_token": 2,
        "ffn": 32,
        "shared_ffn": 32,
        "latent": 16,
        "scaling": 2.5,
        "bias_update_rate": 1e-3,
        "aux_loss": 0.0,
    },
    "mtp": {"pattern": "*E", "depths": 2, "loss_scale": 0.3},
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """The folder that `conversions.py` has worked in."""
    folder = tmp_path_factory.mktemp("conversions")
    for dtype in DTYPES:
        (folder / dtype / "tokenizer").mkdir(parents=True)
        small_tokenizer.make(folder / dtype / "tokenizer")
        write_json(folder / dtype / "model.json", MODEL)
    path = os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", CONTRACT / "conversions.py", folder],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_import_starts_a_training(dtype, converted):
    final = converted / dtype / "import" / "final"
    found = torch_dist.check(torch_dist.iteration_folder(final))
    assert (final / torch_dist.TRACKER).read_text() == "0"
    assert "embedding.word_embeddings.weight" in found.tensors
    assert not any(name.startswith("optimizer") for name in found.tensors)
    assert torch_dist.differences(torch_dist.model_config(final / "iter_0000000"), MODEL) == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["import", "export"])
def test_a_model_comes_back_as_it_went(way, dtype, converted):
    """In bfloat16 too, where the experts' biases stay float32."""
    source = tensors(converted / dtype / "source" / "model.safetensors")
    again = tensors(converted / dtype / "export" / "final" / "model.safetensors")
    assert source.keys() == again.keys()
    for name, weight in source.items():
        assert weight.dtype == again[name].dtype and torch.equal(weight, again[name]), name
    told = read_json(converted / dtype / way / "parity.json")
    assert (told["tensors"], told["dtype"], told["verdict"]) == (len(source), dtype, "passed")
    assert told["names"] == told["shapes"] == told["values"] == "equal"
    if dtype == "float32":  # where conversions.py lets a CPU answer
        assert told["logits"]["cosine"] == told["logits"]["same_next_token"] == 1
    else:
        assert "on a GPU alone" in told["logits"]["skipped"]


def test_adapters_are_merged_into_their_base(converted):
    """The exported model answers as the base with its adapters did, and not as the base alone."""
    told = read_json(converted / "float32" / "told.json")
    assert told["adapters"] < 1e-5 and told["moved"] > 0.1
    assert read_json(converted / "float32" / "merged" / "parity.json")["verdict"] == "passed"
    adapters = converted / "float32" / "adapters"
    names = torch_dist.check(adapters / "iter_0000020").tensors
    assert names and all(".adapter." in name for name in names if "common_state" not in name)


def test_a_mean_is_loaded_by_megatron_bridge(converted):
    folder = converted / "float32"
    steps = [tensors(folder / f"step_{step:07d}" / "weights") for step in (100, 200, 300)]
    mean = tensors(folder / "mean" / "weights")
    assert mean.keys() == steps[0].keys()
    for name, weight in mean.items():
        expected = torch.stack([step[name] for step in steps]).mean(0)
        assert torch.allclose(weight, expected, rtol=1e-6, atol=1e-7), name
    assert read_json(folder / "mean" / "merged.json") == {"steps": [100, 200, 300]}
    final = folder / "mean" / "final"
    assert (final / torch_dist.TRACKER).read_text() == "300"
    assert read_json(final / "state.json") == {"step": 300}
    found = torch_dist.check(torch_dist.iteration_folder(final)).tensors
    assert not any(name.startswith("optimizer") for name in found)


def test_a_checkpoint_is_found_where_each_framework_leaves_it(tmp_path):
    bridge = small_models.megatron(tmp_path / "bridge")
    assert iteration_of(bridge) == bridge / "iter_0000100"
    weights = tmp_path / "nemo_rl" / "policy" / "weights"
    made = small_models.megatron(weights)
    (made / "iter_0000100").rename(made / "iter_0000000")
    (made / "latest_checkpointed_iteration.txt").write_text("0")
    assert iteration_of(tmp_path / "nemo_rl") == weights / "iter_0000000"


def test_what_cannot_be_exported_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="NeMo-RL must train with its Megatron backend"):
        iteration_of(tmp_path / "empty")
    folder = small_models.megatron(tmp_path / "adapters")
    with pytest.raises(UserError, match="no adapters in it, but sft.lora is set"):
        iteration_of(folder, adapters=True)
    (folder / "iter_0000100" / "run_config.yaml").write_text("peft: {dim: 32}\n")
    with pytest.raises(UserError, match="set sft.lora as they were trained, or merge them first"):
        iteration_of(folder)
