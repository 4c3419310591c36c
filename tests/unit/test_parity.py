"""The verdict on a conversion: bits that come back, logits that agree, and what fails."""

import pytest
import torch
from safetensors.torch import save_file

from nemoflow.engines import hub_folder, parity
from nemoflow.errors import UserError

WEIGHTS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "b.weight": torch.arange(12.0).reshape(3, 4) + 0.5,
    "c.bias": torch.tensor([float("nan"), 0.0]),
    "d.scale": torch.tensor(2.0),
    "gate.e_score_correction_bias": torch.zeros(5),
}


@pytest.fixture(params=[10**9, 1], ids=["one file", "shards"])
def folder(request, tmp_path):
    weights = dict(hub_folder.cast(WEIGHTS.items(), "bfloat16"))
    hub_folder.write_shards(weights.items(), tmp_path, request.param)
    return tmp_path


def again(**changed):
    """The folder's tensors with some replaced, or left out where None."""
    weights = dict(hub_folder.cast(WEIGHTS.items(), "bfloat16"))
    weights |= {name.replace("__", "."): tensor for name, tensor in changed.items()}
    return [(name, tensor) for name, tensor in weights.items() if tensor is not None]


def test_what_comes_back_equal_is_counted(folder):
    found = parity.round_trip(folder, iter(again()[::-1]))
    assert found == {
        "tensors": 5,
        "parameters": 32,
        "dtype": "bfloat16",
        "names": "equal",
        "shapes": "equal",
        "values": "equal",
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"a__weight": WEIGHTS["b.weight"].bfloat16()}, "a.weight: 12 of 12 values differ"),
        ({"a__weight": WEIGHTS["a.weight"].T.bfloat16()}, r"a.weight: \[3, 4\] became \[4, 3\]"),
        ({"a__weight": WEIGHTS["a.weight"]}, "a.weight: torch.bfloat16 became torch.float32"),
        (
            {"c__bias": torch.tensor([float("nan"), -0.0]).bfloat16()},
            "c.bias: 1 of 2 values differ",
        ),
        ({"d__scale": None}, "d.scale: lost on the way"),
        ({"e__weight": torch.ones(2)}, "e.weight: not in the folder"),
    ],
)
def test_what_does_not_is_a_user_error_by_name(folder, changed, said):
    with pytest.raises(UserError, match=f"1 tensors do not come back as they went in: {said}"):
        parity.round_trip(folder, again(**changed))


def test_a_tensor_that_comes_twice_is_noticed(folder):
    with pytest.raises(UserError, match="a.weight: twice"):
        parity.round_trip(folder, [*again(), again()[0]])


def test_a_file_that_is_cut_short_is_noticed(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(UserError, match="cut short"):
        parity.round_trip(tmp_path, WEIGHTS.items())


def test_the_probe_is_the_same_everywhere():
    tokens = parity.probe(300)
    assert tokens.shape == (2, 64) and tokens.dtype == torch.int64
    assert torch.equal(tokens, parity.probe(300)) and 250 < tokens.max() < 300


def test_logits_that_agree_pass_and_others_fail():
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(2, 8, 50, generator=generator)
    found = parity.logits(ours, ours * 1.001)
    assert found == {"against": "transformers", "tokens": 16, "cosine": 1, "same_next_token": 1}
    full = {"dtype": "float32"}
    assert parity.verdict(full | {"logits": found})["verdict"] == "passed"
    one = ours.clone()
    one[1, 3, ours[1, 3].argmin()] = ours.max() + 1
    found = parity.logits(ours, one)
    assert found["same_next_token"] == round(15 / 16, 4) and found["cosine"] < 0.9
    assert parity.verdict(full | {"logits": found})["verdict"] == "failed"
    assert parity.verdict(full | {"logits": found | {"same_next_token": 1}})["verdict"] == "failed"


@pytest.mark.parametrize(("dtype", "verdict"), [("float32", "failed"), ("bfloat16", "passed")])
def test_near_ties_may_fall_either_way_in_16_bits(dtype, verdict):
    found = {"dtype": dtype, "logits": {"cosine": 0.9999, "same_next_token": 0.96}}
    assert parity.verdict(found)["verdict"] == verdict


def test_logits_that_nobody_compared_fail_nothing():
    skipped = {"logits": {"skipped": "no GPU"}}
    assert parity.verdict({}) == {"verdict": "passed"}
    assert parity.verdict(skipped) == skipped | {"verdict": "passed"}


def test_adapters_must_agree_more_closely_in_a_finer_type():
    ours = torch.zeros(1, 1, 4)
    for dtype, verdict in (("float32", "failed"), ("bfloat16", "passed")):
        found = parity.adapters(ours, ours + 0.0123, dtype)
        assert found["max_difference"] == 0.01
        assert parity.verdict({"adapters": found})["verdict"] == verdict
