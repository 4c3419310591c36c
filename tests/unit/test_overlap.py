"""Thirteen words of an item, or all of a shorter one: what overlaps and what does not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compared_words import words_of
from nemoflow import overlap
from nemoflow.overlap import COMMON, SPAN, Index, Items

WORDS = [f"word{number}" for number in range(30)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't STOP – the x_1, now!", ["don", "t", "stop", "the", "x", "1", "now"]),
        ("ﬁne Ⅳ ２", ["fine", "iv", "2"]),
        ("Straße\u00a0ΣΑΣ", ["strasse", "σασ"]),
        ("... --", []),
    ],
)
def test_words_are_letters_and_digits_without_case(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (WORDS[:13], True),
        (WORDS[17:], True),
        (["more", *WORDS[5:18], "more"], True),
        (WORDS[:12], False),
        ([*WORDS[:12], "other", *WORDS[13:25]], False),
        (WORDS[12::-1], False),
        ([*WORDS[:6], *WORDS[7:14]], False),
    ],
)
def test_thirteen_words_in_a_row(words, found):
    assert Items([" ".join(WORDS)]).overlaps(" ".join(words)) is found


def test_a_shorter_item_is_all_of_the_text():
    items = Items(["The capital of France is", "", "..."])
    assert items.count == 1
    assert items.overlaps("THE capital, of france: is?")
    assert not items.overlaps("The capital of France is Paris")
    assert not items.overlaps("...") and not items.overlaps("")


TEXT = st.lists(st.sampled_from("abc"), max_size=40)


@settings(max_examples=200)
@given(st.lists(TEXT, max_size=4), TEXT)
def test_it_is_the_same_as_comparing_word_by_word(items, text):
    def spans(words):
        return {tuple(words[i : i + SPAN]) for i in range(len(words) - SPAN + 1)}

    plain = any(spans(item) & spans(text) or (len(item) < SPAN and item and item == text)
                for item in items)  # fmt: skip
    text, items = " ".join(text), [" ".join(item) for item in items]
    assert Items(items).overlaps(text) == plain
    assert Items.union([Items([item]) for item in items]).overlaps(text) == plain


@settings(max_examples=200)
@given(st.lists(st.lists(TEXT, max_size=4), max_size=3), TEXT)
def test_an_index_finds_just_the_items_that_a_text_holds(tasks, text):
    def runs(words):
        return {tuple(words[i : i + SPAN]) for i in range(len(words) - SPAN + 1)} or {tuple(words)}

    def held(item):
        if (len(item) < SPAN) != (len(text) < SPAN):
            return False
        return bool(item) and bool(runs(item) & runs(text))

    wanted = {
        (str(task), number)
        for task, items in enumerate(tasks)
        for number, item in enumerate(items)
        if held(item)
    }
    index = Index(
        {str(task): [" ".join(item) for item in items] for task, items in enumerate(tasks)}
    )
    found = index.find(" ".join(text))
    assert set(found) == wanted
    assert all(f" {words} " in f" {' '.join(text)} " for words in found.values())
    assert index.short == {
        str(task): sum(len(item) < SPAN for item in items) for task, items in enumerate(tasks)
    }


def test_what_many_items_of_a_task_share_is_no_item_s_own():
    prompt = " ".join(WORDS[:15])
    shared = [f"{prompt} item{number} {' '.join(WORDS[15:])}" for number in range(COMMON + 1)]
    index = Index({"many": [*shared, *["Too short"] * 11], "few": shared[:1]})
    assert index.find(prompt) == {("few", 0): " ".join(WORDS[:13])}
    assert set(index.find(f"so: {shared[3]}")) == {("few", 0), ("many", 3)}
    assert index.find("too short") == {}


def test_words_may_be_of_any_script_and_stand_far_behind():
    item = " ".join(f"слово{number} 東京" for number in range(9))
    before = "x" * (overlap.AT_ONCE - 40) + " "
    for moved in range(0, 80, 7):
        text = before + "a" * moved + " " + item.upper() + " 。Ende"
        assert set(Index({"a": [item]}).find(text)) == {("a", 0)}


def test_a_lone_surrogate_is_no_word():
    assert words_of("a\ud800b") == ["a", "b"]
