"""config.json of a model section, and where another's disagrees with it."""

import json

import pytest

from nemoflow import hub
from small_models import MODEL

WHOLE = {"ffn": None, "mtp": {"pattern": "*E", "depths": 2, "loss_scale": 0.3}, **MODEL}


def test_config_is_the_released_layout():
    config = hub.hub_config(WHOLE, "bfloat16")
    assert config["hybrid_override_pattern"] == "M*E"
    assert config["mtp_hybrid_override_pattern"] == "*E"
    assert config["torch_dtype"] == config["dtype"] == "bfloat16"
    assert config["num_nextn_predict_layers"] == 1  # depths share their weights
    assert not {"layers_block_type", "mtp_layers_block_type", "time_step_limit"} & set(config)
    json.dumps(config, allow_nan=False)


def test_a_config_of_ours_differs_in_nothing():
    assert hub.differences(hub.hub_config(WHOLE), WHOLE) == []
    bare = {key: value for key, value in WHOLE.items() if value is not None}
    assert hub.differences(hub.hub_config(WHOLE), bare) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hidden_size", 16, "hidden_size: 16; pretrain.model.hidden_size: 8"),
        ("num_key_value_heads", 2, "num_key_value_heads: 2; pretrain.model.attention.kv_heads: 1"),
        ("n_group", 4, "n_group: 4; in every model of the recipes: 1"),
        ("moe_latent_size", 4, "moe_latent_size: 4; pretrain.model.moe.latent: none"),
        ("num_nextn_predict_layers", 0, "num_nextn_predict_layers: none; pretrain.model.mtp: {"),
        ("layers_block_type", ["mamba", "moe"], "hybrid_override_pattern: ME; pretrain.model.pat"),
    ],
)
def test_what_differs_is_named_with_both_values(key, value, said):
    config = {**hub.hub_config(WHOLE), key: value}
    if key == "layers_block_type":  # as transformers writes it
        del config["hybrid_override_pattern"]
    (told,) = hub.differences(config, WHOLE)
    assert told.startswith(said)


def test_keys_that_one_of_them_lacks_are_not_compared():
    assert hub.differences({"vocab_size": 16, "rope_theta": 1e4}, WHOLE) == []
    config = hub.hub_config(WHOLE) | {"intermediate_size": 99}  # without a dense layer, unused
    assert hub.differences(config, WHOLE) == []


def test_transformers_words_of_layers_are_read():
    words = {
        "layers_block_type": ["linear_attention", "full_attention", "moe"],
        "mtp_layers_block_type": ["attention", "moe"],
    }
    assert hub.patterns(words) == {
        "hybrid_override_pattern": "M*E", "mtp_hybrid_override_pattern": "*E",
    }  # fmt: skip
    assert hub.differences(words, WHOLE) == []
