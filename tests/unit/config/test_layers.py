"""Parents, files and overrides: how they merge, and who is said to have set what."""

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.config.layers import (
    COLLECTIONS,
    Layered,
    merge,
    over,
    overrides,
    spread_defaults,
    with_override,
)
from nemoflow.errors import UserError

# As in our files, a key is a mapping everywhere or nowhere.
LEAVES = ("a", "b", "C.a", "C.b", "C.D.a", "C.D.b", "E.a", "E.F.a")
leaf = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)


def nested(flat):
    tree = {}
    for dotted, value in flat.items():
        *around, last = dotted.split(".")
        inner = tree
        for name in around:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return tree


trees = st.dictionaries(st.sampled_from(LEAVES), leaf).map(nested)


@given(trees)
def test_the_empty_layer_changes_nothing(tree):
    assert merge(tree, {}) == merge({}, tree) == merge(tree, tree) == tree


@given(trees, trees, trees)
def test_layers_without_null_merge_in_any_grouping(one, two, three):
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(trees, trees)
def test_merging_leaves_its_layers_alone_and_loses_no_key(lower, upper):
    before = deepcopy((lower, upper))
    merged = merge(lower, upper)
    assert (lower, upper) == before
    assert merged.keys() == lower.keys() | upper.keys()
    assert all(merged[key] == value for key, value in upper.items() if not isinstance(value, dict))


@pytest.mark.parametrize("collection", sorted(COLLECTIONS))
def test_null_removes_an_entry_of_a_collection(collection):
    lower = {collection: {"old": 1, "kept": 2}}
    assert merge(lower, {collection: {"old": None}}) == {collection: {"kept": 2}}
    assert merge(lower, {collection: {"never": None}}) == lower
    assert merge(lower, {collection: None}) == {}


def test_null_removes_mappings_and_lists_and_unsets_plain_values():
    lower = {"moe": {"latent": 64, "ffn": 8}, "mtp": {"depths": 1}, "tasks": ["a"], "peak": 1.0}
    upper = {"moe": {"latent": None}, "mtp": None, "tasks": None, "peak": None}
    assert merge(lower, upper) == {"moe": {"latent": None, "ffn": 8}, "peak": None}


def test_lists_replace_and_a_child_may_set_what_its_parent_removed():
    lower = merge({"steps": {"a": {"n": 1}}, "tasks": [1, 2]}, {"steps": {"a": None}, "tasks": [3]})
    assert merge(lower, {"steps": {"a": {"m": 2}}}) == {"steps": {"a": {"m": 2}}, "tasks": [3]}


names = st.lists(st.sampled_from(["sft", "peak", "a-b", "a_1", "x"]), min_size=1, max_size=3)
pieces = st.sampled_from(
    [", sft.peak=", ",x=1", "'", '"', "\\", "[", "]", "{", "}", ": ", "#", "é"]
)
words = st.lists(pieces, max_size=4).map("".join)
values = st.recursive(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=6,
)


@given(st.lists(st.tuples(names.map(tuple), values), min_size=1, max_size=4))
def test_assignments_keep_lists_commas_quotes_and_brackets(assigned):
    text = ",".join(f"{'.'.join(key)}={json.dumps(value)}" for key, value in assigned)
    assert [(key, value) for key, value, _ in overrides(text)] == assigned


@pytest.mark.parametrize(
    ("text", "assigned"),
    [
        ("sft.schedule.peak=1e-5, rl.seed=2", [("sft.schedule.peak", 1e-5), ("rl.seed", 2)]),
        ("eval.tasks=[mmlu, arc],seed=1", [("eval.tasks", ["mmlu", "arc"]), ("seed", 1)]),
        ("sft.lora={rank: 8, targets: [a, b]}", [("sft.lora", {"rank": 8, "targets": ["a", "b"]})]),
        ("about=one, two", [("about", "one, two")]),
        ("about=it's one, seed=1", [("about", "it's one"), ("seed", 1)]),
        ("about='one, seed=1', seed=2", [("about", "one, seed=1"), ("seed", 2)]),
        ('about="say \\"a, b=1\\"",seed=2', [("about", 'say "a, b=1"'), ("seed", 2)]),
        ("about='it''s, a=1'", [("about", "it's, a=1")]),
        ("about=a=b", [("about", "a=b")]),
        ("pretrain.model.mtp=null", [("pretrain.model.mtp", None)]),
        ("rl.judges={}", [("rl.judges", {})]),
        ("", []),
        (None, []),
    ],
)
def test_an_override_is_read_as_yaml(text, assigned):
    assert [(".".join(key), value) for key, value, _ in overrides(text)] == assigned


def test_each_assignment_remembers_its_own_text():
    assert [where for _, _, where in overrides("a.b=[1,2],c=3")] == ['set="a.b=[1,2]"', 'set="c=3"']


@pytest.mark.parametrize(
    "text", ["a", "=1", "a=", "a= ", "a b=1", "1=2", "a=[1", "a={b", "a='", ",", 7, 0]
)
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(UserError, match='set="'):
        overrides(text)


def test_a_place_is_that_of_the_nearest_key_around():
    layer = Layered({"sft": {"peak": 1}}, {("sft",): "run.yaml:3", ("sft", "peak"): "run.yaml:4"})
    assert layer.place(("sft", "peak")) == "run.yaml:4"
    assert layer.place(("sft", "schedule", "floor")) == "run.yaml:3"
    assert layer.place(("rl",)) == "the config"


def test_the_last_layer_that_set_a_key_is_its_origin():
    parent = Layered({"a": {"x": 1, "y": 2}}, {("a", "x"): "parent:1", ("a", "y"): "parent:2"})
    child = over(parent, Layered({"a": {"x": 3}}, {("a", "x"): "child:1"}))
    child = with_override(child, ("a", "z"), {"deep": 4}, 'set="a.z={deep: 4}"')
    assert child.value == {"a": {"x": 3, "y": 2, "z": {"deep": 4}}}
    assert child.place(("a", "x")) == "child:1" and child.place(("a", "y")) == "parent:2"
    assert child.place(("a", "z", "deep")) == 'set="a.z={deep: 4}"'


def test_a_section_gives_its_phases_defaults_and_seeds():
    run = {
        "seed": 1,
        "pretrain": {
            "engine": "local",
            "batch": {"global": 4, "micro": 2},
            "phases": {"one": {}, "two": {"batch": {"micro": 4}, "seed": 9}},
        },
        "rl": {"seed": 5, "kl": 0.0, "steps": {"a": {}, "b": {"kl": 0.1}}},
        "sft": {"iterations": 3},
    }
    spread = spread_defaults(Layered(run, {("pretrain", "batch", "global"): "run.yaml:4"}))
    phases, steps = spread.value["pretrain"]["phases"], spread.value["rl"]["steps"]
    assert spread.value["pretrain"].keys() == {"engine", "phases"}
    assert phases["one"] == {"batch": {"global": 4, "micro": 2}, "options": {}, "seed": 1}
    assert phases["two"] == {"batch": {"global": 4, "micro": 4}, "options": {}, "seed": 9}
    assert steps["a"] == {"kl": 0.0, "options": {}, "seed": 5}
    assert steps["b"] == {"kl": 0.1, "options": {}, "seed": 5}
    assert spread.value["sft"] == {"iterations": 3, "options": {}, "seed": 1}
    assert spread.place(("pretrain", "phases", "two", "batch", "global")) == "run.yaml:4"
    assert run["pretrain"]["phases"]["one"] == {}
