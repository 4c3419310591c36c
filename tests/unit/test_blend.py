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
    blend, shares = make_blend({"web": 2, "math": 1}, CORPORA)
    assert blend == {
        "train": ["1.5", "web/train_0", "0.5", "web/train_1", "1.0", "math/train_0"],
        "valid": ["2.0", "web/valid_0", "1.0", "math/valid_0"],
        "test": ["2.0", "web/test_0"],
    }
    assert shares["math"]["absent"] == ["test"] and shares["web"]["absent"] == []
    assert shares["web"]["requested"] == 2 / 3 and shares["web"]["share"] == 400 / 450
    assert shares["math"]["tokens"] == 50


def test_weight_zero_takes_no_part():
    blend, shares = make_blend({"web": 1.0, "math": 0}, CORPORA)
    assert "math/train_0" not in blend["train"] and list(shares) == ["web"]


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_shards_add_up_to_the_weight(tokens, weight):
    shards = [shard(f"t{i}", "train", n) for i, n in enumerate(tokens)]
    shards += [shard("v", "valid", 1), shard("x", "test", 1)]
    blend, _ = make_blend({"web": weight}, {"web": shards})
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
