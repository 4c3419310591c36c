"""Export by Megatron-Bridge: its AutoBridge on our base folder, offline, with a stand-in model."""

import inspect

import pytest
import torch
from megatron.bridge import AutoBridge
from safetensors.torch import load_file

import small_models
import small_tokenizer
from nemoflow.engines.megatron.export import export, iteration_of
from nemoflow.errors import UserError
from nemoflow.files import read_json

MODEL = {**small_models.MODEL, "vocab_size": 4096}
WEIGHTS = {"backbone.norm_f.weight": torch.ones(8), "lm_head.weight": torch.ones(8, 8)}


def nemo_rl(folder):
    """A checkpoint as NeMo-RL's Megatron backend leaves it in step_N."""
    made = small_models.megatron(folder / "policy" / "weights")
    (made / "iter_0000100").rename(made / "iter_0000000")
    (made / "latest_checkpointed_iteration.txt").write_text("0")
    return folder


@pytest.fixture
def asked(monkeypatch):
    """What Megatron-Bridge is called with; refused where its own signature is another."""
    told = {}
    load, stream = AutoBridge.load_megatron_model, AutoBridge.export_hf_weights

    def loaded(self, *given, **named):
        inspect.signature(load).bind(self, *given, **named)
        assert torch.distributed.is_initialized()
        told["path"] = given[0]
        return ["a model"]

    def streamed(self, *given, **named):
        inspect.signature(stream).bind(self, *given, **named)
        told["provider"] = self.to_megatron_provider(load_weights=False)
        return iter(WEIGHTS.items())

    monkeypatch.setattr(AutoBridge, "load_megatron_model", loaded)
    monkeypatch.setattr(AutoBridge, "export_hf_weights", streamed)
    return told


@pytest.mark.parametrize("make", [small_models.megatron, nemo_rl])
def test_a_published_checkpoint_becomes_a_hub_folder(tmp_path, asked, make):
    folder = make(tmp_path / "checkpoint")
    (tmp_path / "tokenizer").mkdir()
    small_tokenizer.make(tmp_path / "tokenizer")
    job = {
        "config": {"dtype": "bfloat16", "model": MODEL},
        "inputs": {"checkpoint": str(folder), "tokenizer": str(tmp_path / "tokenizer")},
        "progress": str(tmp_path),
    }
    assert export(job) == 0
    final = tmp_path / "final"
    assert asked["path"] == iteration_of(folder)
    assert asked["provider"].hybrid_layer_pattern == MODEL["pattern"]
    assert read_json(final / "config.json")["hybrid_override_pattern"] == MODEL["pattern"]
    assert (final / "tokenizer.json").exists()
    found = load_file(final / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys(
        WEIGHTS, torch.bfloat16
    )


def test_what_cannot_be_exported_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="NeMo-RL must train with its Megatron backend"):
        iteration_of(tmp_path / "empty")
    folder = small_models.megatron(tmp_path / "adapters")
    (folder / "iter_0000100" / "run_config.yaml").write_text("peft: {dim: 32}\n")
    with pytest.raises(UserError, match="merge them first"):
        iteration_of(folder)
