"""Keys of identities as keys of the config; more of them stand in test_planning."""

import pytest

from nemoflow import keys


def test_long_values_are_cut_and_missing_ones_unset():
    assert keys.value_at({"a": {"b": 1}}, ("a", "b")) == 1
    assert keys.value_at({"a": 1}, ("a", "b")) is keys.value_at({}, ("a",)) is None
    assert keys.shown(None) == "unset" and keys.shown(False) == "False"
    assert keys.shown("x" * 99) == "x" * 57 + "…"


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ({"phase": "phase1"}, "pretrain.phases.phase1.blend.weights.news"),
        ({"phase": "phase1", "blend": "small"}, "blends.small.weights.news"),
    ],
)
def test_a_blend_is_named_where_its_name_is_known(named, key):
    assert keys.dotted("blend", named, ("weights", "news")) == key


def test_a_rule_that_is_not_known_names_its_keys_itself():
    assert keys.dotted("distill", {}, ("loss", "scale")) == "distill.loss.scale"
