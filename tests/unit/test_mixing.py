"""Weights and the held-out sequences of a mixture."""

import numpy as np
import pytest

from nemoflow.errors import UserError
from nemoflow.mixing import choose
from nemoflow.spool import Spool, SpoolWriter


def spool(folder, sequences, eos_id=7):
    with SpoolWriter(folder, eos_id) as writer:
        for ids, mask in sequences:
            writer.add(np.array(ids, np.int32), np.array(mask, np.uint8))
    return Spool(folder)


def numbered(count, first=100, length=4):
    return [([first + i] * length, [0, 0] + [1] * (length - 2)) for i in range(count)]


def test_weights_are_shares_of_sequences(tmp_path):
    a, b = spool(tmp_path / "a", numbered(100)), spool(tmp_path / "b", numbered(60, 500, 8))
    chosen, counts = choose({"a": (a, 1.0), "b": (b, 3.0)}, 32, 0, 0.0)
    assert {n: (s["train"], s["left_out"], s["share"]) for n, s in counts.items()} == {
        "a": (20, 80, 0.25),
        "b": (60, 0, 0.75),
    }
    assert counts["b"]["token_share"] == round(480 / 560, 6)
    assert len(chosen["train"].index) == 80 and len(chosen["valid"].index) == 0


def test_equal_weights_keep_everything(tmp_path):
    a, b = spool(tmp_path / "a", numbered(100)), spool(tmp_path / "b", numbered(60, 500))
    chosen, counts = choose({"a": (a, 2.0), "b": (b, 2.0)}, 32, 0, 0.1)
    assert len(chosen["train"].index) + len(chosen["valid"].index) == 160
    assert [source["valid"] for source in counts.values()] == [10, 6]


def test_equal_sequences_of_two_sources_stay_in_one_split(tmp_path):
    a, b = spool(tmp_path / "a", numbered(50)), spool(tmp_path / "b", numbered(80, 120))
    chosen, _ = choose({"a": (a, 1.0), "b": (b, 1.0)}, 32, 0, 0.2)
    found = {
        split: {int(ids[0]) for ids, _ in sequences.of(np.arange(len(sequences.index)))}
        for split, sequences in chosen.items()
    }
    assert found["train"] and found["valid"] and not found["train"] & found["valid"]


def test_the_seed_decides_who_is_held_out(tmp_path):
    a = {"a": (spool(tmp_path / "a", numbered(100)), 1.0)}
    held = [choose(a, 32, seed, 0.1)[0]["valid"].index.tolist() for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_one_sequence_is_for_training(tmp_path):
    chosen, _ = choose({"a": (spool(tmp_path / "a", numbered(1)), 1.0)}, 32, 0, 0.5)
    assert len(chosen["train"].index) == 1


def test_what_cannot_be_mixed(tmp_path):
    fine = spool(tmp_path / "a", numbered(1))
    untrained = spool(tmp_path / "b", [([1, 2], [0, 0]), ([1, 2], [1, 0])])
    other = spool(tmp_path / "c", numbered(1), eos_id=2)
    for sources, message in (
        ({"a": (fine, -1.0)}, "weight -1.0 of a"),
        ({"a": (fine, float("nan"))}, "weight nan of a"),
        ({}, "no source has a weight"),
        ({"b": (untrained, 1.0)}, "no sequence of b trains a token"),
        ({"a": (fine, 1.0), "c": (other, 1.0)}, "different tokenizers"),
    ):
        with pytest.raises(UserError, match=message):
            choose(sources, 16, 0, 0.0)
