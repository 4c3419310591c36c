"""Weights by tokens, no empty list."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.blend import check_blend, make_blend
from nemoflow.errors import UserError


def shard(prefix, split, tokens):
    return {"prefix": prefix, "split": split, "sequences": 1, "tokens": tokens}


CORPORA = {
    "web": [
        shard("web/train_0", "train", 300),
        shard("web/train_1", "train", 100),
        shard("web/valid_0", "valid", 10),
        shard("web/test_0", "test", 10),
    ],
    "math": [shard("math/train_0", "train", 50), shard("math/valid_0", "valid", 5)],
}


def test_a_shard_weighs_its_share_of_tokens():
    assert make_blend({"web": 2, "math": 1}, CORPORA) == {
        "train": ["1.0", "math/train_0", "1.5", "web/train_0", "0.5", "web/train_1"],
        "valid": ["1.0", "math/valid_0", "2.0", "web/valid_0"],
        "test": ["2.0", "web/test_0"],
    }


def test_weight_zero_is_not_trained_on():
    blend = make_blend({"web": 1.0, "math": 0}, CORPORA)
    assert not [entry for entries in blend.values() for entry in entries if "math" in entry]


def test_an_empty_shard_is_not_told_of():
    shards = [*CORPORA["web"], shard("web/train_2", "train", 0), shard("web/test_1", "test", 0)]
    assert make_blend({"web": 2}, {"web": shards}) == make_blend({"web": 2}, CORPORA)


def test_imported_shards_keep_their_weights_to_each_other():
    shards = [
        shard("a", "train", 10) | {"weight": 3.0},
        shard("b", "train", 1000) | {"weight": 1.0},
        shard("unused", "train", 5) | {"weight": 0.0},
        shard("v", "valid", 5) | {"weight": 7.0},
        shard("x", "test", 5) | {"weight": 1.0},
    ]
    blend = make_blend({"theirs": 2}, {"theirs": shards})
    assert blend["train"] == ["1.5", "a", "0.5", "b"]
    assert blend["valid"] == ["2.0", "v"] and blend["test"] == ["2.0", "x"]


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_shards_add_up_to_the_weight(tokens, weight):
    shards = [shard(f"t{i}", "train", n) for i, n in enumerate(tokens)]
    shards += [shard("v", "valid", 1), shard("x", "test", 1)]
    blend = make_blend({"web": weight}, {"web": shards})
    weights = [float(entry) for entry in blend["train"][::2]]
    assert sum(weights) == pytest.approx(weight)
    assert weights == [weight * (n / sum(tokens)) for n in tokens]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"math": 1}, "in its test split"),
        ({"wbe": 1}, "no corpus wbe; there are math, web"),
        ({"web": -1}, "-1 of web must be a finite"),
        ({"web": float("nan")}, "nan of web"),
        ({"web": 0}, "weight above 0"),
    ],
)
def test_what_cannot_be_blended(weights, message):
    with pytest.raises(UserError, match=message):
        make_blend(weights, CORPORA)


def test_a_corpus_without_training_tokens_is_refused():
    with pytest.raises(UserError, match="small has no training tokens"):
        make_blend({"web": 1, "small": 1}, CORPORA | {"small": [shard("v", "valid", 3)]})


def test_check_blend_wants_every_file(tmp_path):
    blend = {split: ["1.0", str(tmp_path / split)] for split in ("train", "valid", "test")}
    for split in blend:
        for end in ("bin", "idx"):
            (tmp_path / f"{split}.{end}").touch()
    path = tmp_path / "blend.json"
    path.write_text(json.dumps(blend))
    check_blend(path)
    (tmp_path / "valid.idx").unlink()
    with pytest.raises(UserError, match=r"1 files of valid do not exist.*valid\.idx"):
        check_blend(path)
    (tmp_path / "valid.idx").touch()
    path.write_text(json.dumps(blend | {"test": []}))
    with pytest.raises(UserError, match="test must be a list of pairs"):
        check_blend(path)
