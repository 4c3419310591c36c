"""Exported weights: cast, and cut into files that every reader of the hub's format knows."""

import pytest
import torch
from safetensors.torch import load_file

from nemoflow import shards
from nemoflow.engines import hub_folder
from nemoflow.errors import UserError
from small_models import MODEL

WEIGHTS = {f"layers.{layer}.weight": torch.full((4, 8), float(layer)) for layer in range(5)}


@pytest.mark.parametrize(("limit", "files"), [(10**6, 1), (300, 3), (1, 5)])
def test_shards_hold_everything_once(tmp_path, limit, files):
    hub_folder.write_shards(WEIGHTS.items(), tmp_path, limit)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len([name for name in names if name.endswith(".safetensors")]) == files
    found = shards.read_all(tmp_path, names)  # what an import checks
    assert found.keys() == WEIGHTS.keys()
    loaded = {}
    for path in tmp_path.glob("*.safetensors"):
        loaded |= load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in WEIGHTS.items())


def test_the_balancing_bias_stays_fp32():
    bias = "backbone.layers.1.mixer.gate.e_score_correction_bias"
    given = {bias: torch.zeros(4), "backbone.norm_f.weight": torch.ones(4)}
    cast = dict(hub_folder.cast(given.items(), "bfloat16"))
    assert [tensor.dtype for tensor in cast.values()] == [torch.float32, torch.bfloat16]


def test_config_of_a_smaller_vocabulary_is_refused(tiny_tokenizer):
    with pytest.raises(UserError, match="tokens, but model.vocab_size is 3"):
        hub_folder.config_of({**MODEL, "vocab_size": 3}, "bfloat16", str(tiny_tokenizer))
    config = hub_folder.config_of({**MODEL, "vocab_size": 9999}, "bfloat16", str(tiny_tokenizer))
    assert (config["dtype"], config["model_type"]) == ("bfloat16", "nemotron_h")
    assert config["eos_token_id"] is not None
    assert 0 < config["time_step_min"] < 1e-6  # no bound in effect, and a logarithm
