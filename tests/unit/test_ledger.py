"""Counts of rows and bytes by file and reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.errors import UserError
from nemoflow.ledger import KEPT, Ledger

REASONS = [KEPT, "empty_text", "too_short", "not_json", "not_utf8", "special_token"]
COUNTS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(REASONS), st.integers(1, 9), st.integers(0, 99)
    ),
    max_size=20,
)


def of(counts):
    ledger = Ledger()
    for number, (path, reason, rows, size) in enumerate(counts):
        ledger.count(path, reason, rows, size, f"byte {number}" if reason != KEPT else "")
    return ledger


@given(COUNTS, COUNTS)
def test_nothing_is_lost_in_adding_and_writing(first, second):
    ledger = of(first)
    ledger.add(Ledger.of(json.loads(json.dumps(of(second).receipt()))))
    everything = [*first, *second]
    facts = ledger.facts()
    for which, place in (("rows", 2), ("bytes", 3)):
        told = facts[which]
        assert told["in"] == told["kept"] + sum(told["dropped"].values())
        assert told["in"] == sum(each[place] for each in everything)
        assert told["kept"] == sum(each[place] for each in everything if each[1] == KEPT)
        by_file = [pair[place - 2] for file in facts["by_file"].values() for pair in file.values()]
        assert sum(by_file) == told["in"]
    for path in "abc":
        rows = sum(each[2] for each in everything if each[0] == path)
        assert sum(pair[0] for pair in facts["by_file"].get(path, {}).values()) == rows


def test_the_first_places_are_kept_in_order():
    ledger, later = Ledger(), Ledger()
    ledger.count("a", "not_json", 1, 5, "byte 10")
    for place in range(5):
        later.count("b", "not_json", 1, 5, f"byte {place}")
    ledger.add(later)
    assert ledger.first == {"not_json": ["a, byte 10", "b, byte 0", "b, byte 1"]}
    assert Ledger.of(ledger.receipt()).first == ledger.first


def test_a_kept_row_can_be_dropped_after_all():
    ledger = Ledger()
    ledger.count("a", KEPT, 1, 50)
    ledger.move("a", "tokenizer_failure", 50, "byte 7")
    assert ledger.receipt() == {
        "files": {"a": {"kept": [0, 0], "tokenizer_failure": [1, 50]}},
        "first": {"tokenizer_failure": ["a, byte 7"]},
        "noted": {},
    }
    whole = Ledger()
    whole.add(ledger)
    assert whole.receipt() == ledger.receipt()


def test_a_file_without_rows_is_named_all_the_same():
    ledger = of([("a", KEPT, 2, 9)])
    ledger.see("empty")
    ledger.see("a")
    assert ledger.facts()["by_file"] == {"a": {"kept": [2, 9]}, "empty": {"kept": [0, 0]}}
    assert ledger.facts()["rows"] == {"in": 2, "kept": 2, "dropped": {}}


def test_notes_change_no_count():
    ledger = Ledger()
    ledger.note("nul_character", 2)
    ledger.note("special_token </s>", 0)
    ledger.note("nul_character", 1)
    assert ledger.facts()["noted"] == {"nul_character": 3}
    assert ledger.facts()["rows"] == {"in": 0, "kept": 0, "dropped": {}}
    ledger.check("web", 0.0)


def test_too_many_faults_are_told_with_their_first_places():
    ledger = of([("a", KEPT, 990, 9000), ("a", "not_json", 6, 60), ("b", "not_utf8", 4, 40)])
    ledger.check("web", 0.01)
    with pytest.raises(UserError) as told:
        ledger.check("web", 0.0099)
    assert str(told.value) == (
        "corpus web: 10 of 1,000 rows cannot be used: 6 not_json (a, byte 1); 4 not_utf8"
        " (b, byte 2). That is more than max_dropped: 0.0099 allows; mend the rows, or raise"
        " corpora.web.max_dropped"
    )


@pytest.mark.parametrize("reason", ["empty_text", "too_short", "special_token"])
def test_what_the_corpus_asks_to_drop_is_no_fault(reason):
    of([("a", KEPT, 1, 9), ("a", reason, 99, 99)]).check("web", 0.0)


def test_a_file_without_rows_and_the_first_places_are_told():
    ledger = of([("a", KEPT, 2, 9), ("a", "not_json", 1, 3)])
    ledger.see("empty")
    again = Ledger.of(ledger.receipt())
    assert again.facts() == ledger.facts()
    assert ledger.facts()["by_file"]["empty"] == {"kept": [0, 0]}
    assert ledger.facts()["first"] == {"not_json": ["a, byte 1"]}
