"""Weights, held-out conversations, and the counts of a mixture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow.errors import UserError
from nemoflow.mixing import SPLITS, choose, told
from nemoflow.spool import Spool
from small_spool import numbered, spool


def counted(spools, *asked, **named):
    """What is chosen, and what the manifest would say."""
    chosen, sources = choose(spools, *asked, **named)
    trained = {split: np.zeros(len(spools), int) for split in SPLITS}
    return chosen, told(sources, trained)


@pytest.fixture
def given_spool(tmp_path):
    return lambda name, rows, **named: Spool(spool(tmp_path / name, rows, **named))


def conversations(random, count, lowest, highest):
    """Rows of one or two sequences; the first has a prompt of its own."""
    for number in range(count):
        row = []
        for _ in range(random.integers(1, 3)):
            length = int(random.integers(lowest, highest))
            row.append(([number, *random.integers(0, 99, length - 1)], [0, 0] + [1] * (length - 2)))
        yield row


def test_weights_are_shares_of_rows(given_spool):
    a, b = given_spool("a", numbered(100)), given_spool("b", numbered(60, 500, 8))
    chosen, counts = counted({"a": (a, 1.0), "b": (b, 3.0)}, 32, 0, 0.0)
    rows = {name: (c["rows"]["train"], c["rows"]["left_out"]) for name, c in counts.items()}
    assert rows == {"a": (20, 80), "b": (60, 0)}
    assert [c["asked"] for c in counts.values()] == [0.25, 0.75]
    assert counts["b"]["got"] == {"rows": 0.75, "tokens": round(480 / 560, 6)}
    assert len(chosen["train"].start) == 80 and len(chosen["valid"].start) == 0


@pytest.mark.parametrize("too_long", ["truncate", "drop", "split"])
def test_weights_by_tokens(given_spool, too_long):
    random = np.random.default_rng(0)
    a = given_spool("a", list(conversations(random, 3000, 4, 60)))
    b = given_spool("b", list(conversations(random, 1000, 10, 200)))
    told = {"weigh_by": "tokens", "too_long": too_long}
    chosen, counts = counted({"a": (a, 7.0), "b": (b, 3.0)}, 120, 3, 0.02, **told)
    assert counts["a"]["got"]["tokens"] == pytest.approx(0.7, abs=0.003)
    assert counts["b"]["got"]["tokens"] == pytest.approx(0.3, abs=0.003)
    assert 0 in [c["rows"]["left_out"] for c in counts.values()]
    for split, found in chosen.items():
        tokens = np.bincount(found.source, found.length)
        assert tokens.tolist() == [c["tokens"][split] for c in counts.values()]


def test_equal_weights_keep_everything(given_spool):
    a, b = given_spool("a", numbered(100)), given_spool("b", numbered(60, 500))
    for weigh_by in ("rows", "tokens"):
        spools = {"a": (a, 2.0), "b": (b, 2.0)}
        chosen, counts = counted(spools, 32, 0, 0.1, weigh_by=weigh_by)
        assert len(chosen["train"].start) + len(chosen["valid"].start) == 160
        assert [source["rows"]["valid"] for source in counts.values()] == [10, 6]


def test_no_weight_moves_a_row_into_the_other_split(given_spool):
    a, b = given_spool("a", numbered(100)), given_spool("b", numbered(60, 500))
    found = []
    for weight in (1.0, 5.0):
        chosen, _ = choose({"a": (a, 1.0), "b": (b, weight)}, 32, 0, 0.1)
        found.append({s: set(zip(c.source, c.start, strict=True)) for s, c in chosen.items()})
    assert not found[0]["train"] & found[1]["valid"] and not found[1]["train"] & found[0]["valid"]


def test_rows_of_two_sources_with_one_prompt_stay_in_one_split(given_spool):
    a, b = given_spool("a", numbered(50)), given_spool("b", numbered(80, 120))
    chosen, _ = choose({"a": (a, 1.0), "b": (b, 1.0)}, 32, 0, 0.2)
    found = {
        split: {int(ids[0]) for ids, _ in sequences.of(np.arange(len(sequences.start)))}
        for split, sequences in chosen.items()
    }
    assert found["train"] and found["valid"] and not found["train"] & found["valid"]


def test_all_sequences_of_a_row_go_together(given_spool):
    random = np.random.default_rng(1)
    a = given_spool("a", list(conversations(random, 300, 4, 30)))
    b = given_spool("b", list(conversations(random, 300, 4, 30)))
    chosen, counts = counted({"a": (a, 1.0), "b": (b, 2.0)}, 64, 0, 0.1)
    for number, (name, there) in enumerate((("a", a.sequences), ("b", b.sequences))):
        starts = [split.start[split.source == number] for split in chosen.values()]
        rows = [there["row"][np.isin(there["start"], own)] for own in starts]
        assert not set(rows[0]) & set(rows[1])
        for own in rows:
            assert len(own) == np.isin(there["row"], own).sum()
        sequences = counts[name]["sequences"]
        assert [len(own) for own in rows] == [sequences["train"], sequences["valid"]]


def test_the_seed_decides(given_spool):
    spools = {
        "a": (given_spool("a", numbered(100)), 1.0),
        "b": (given_spool("b", numbered(90)), 2.0),
    }
    chosen = [choose(spools, 32, seed, 0.1)[0] for seed in (0, 0, 1)]
    for split in SPLITS:
        starts = [c[split].start.tolist() for c in chosen]
        assert starts[0] == starts[1] != starts[2]


def test_what_cannot_be_mixed(given_spool):
    fine = given_spool("a", numbered(1))
    untrained = given_spool("b", [[([1, 2], [0, 0])], [([1, 2], [1, 0])]])
    other = given_spool("c", numbered(1), eos_id=2)
    for sources, message in (
        ({"a": (fine, -1.0)}, "weight -1.0 of a"),
        ({"a": (fine, float("nan"))}, "weight nan of a"),
        ({}, "no source has a weight"),
        ({"b": (untrained, 1.0)}, "no sequence of b trains a token"),
        ({"a": (fine, 1.0), "c": (other, 1.0)}, "different tokenizers"),
    ):
        with pytest.raises(UserError, match=message):
            choose(sources, 16, 0, 0.0)


ROWS = st.lists(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=3),
    max_size=15,
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(ROWS, st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=3),
    st.sampled_from(["truncate", "drop", "split"]),
    st.sampled_from(["rows", "tokens"]),
)
def test_every_row_and_sequence_is_counted_once(tmp_path_factory, given, too_long, weigh_by):
    folder, first = tmp_path_factory.mktemp("spools"), ([1, 2, 3], [0, 1, 1])
    spools = {}
    for name, (masks, weight) in zip("abc", given, strict=False):
        rows = [[(list(range(len(mask))), mask) for mask in row] for row in masks]
        spools[name] = (Spool(spool(folder / name, [[first], *rows])), weight)
    chosen, counts = counted(spools, 6, 0, 0.2, weigh_by=weigh_by, too_long=too_long)
    for number, (name, (own, _)) in enumerate(spools.items()):
        for kind, there in (("rows", own.rows), ("sequences", len(own.sequences))):
            told = counts[name][kind]
            parts = [told[part] for part in ("left_out", "train", "valid")]
            assert told["in"] == there == sum(told["dropped"].values()) + sum(parts)
        assert counts[name]["rows"]["train"] >= 1
        pieces = sum(int((c.source == number).sum()) for c in chosen.values())
        kept = counts[name]["sequences"]["train"] + counts[name]["sequences"]["valid"]
        assert pieces >= kept if too_long == "split" else pieces == kept
