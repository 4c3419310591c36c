"""Which rows keep their reasoning, which sequences they give, and what then stands in them."""

import math

import numpy as np
import pytest

import small_encoders
from nemoflow.reasoning import (
    BUDGET,
    CUT,
    LOW,
    OFF,
    Mode,
    Modes,
    parts,
    reasons,
    shortened,
    without,
)
from nemoflow.vocabulary import Folder
from small_chats import CHATML, REASONING, assistant, rendered, stretches, system, tool, user

SHARES = {"off": 0.1, "low_effort": 0.05, "budget": {"share": 0.15, "tokens": [256, 8192]}}


def thought(content):
    return {"role": "assistant", "content": content, "reasoning_content": "why"}


def of(turns, keeps=False):
    return [(part.first, part.end, part.arguments) for part in parts(turns, keeps)]


def test_the_asked_shares_within_a_hundredth():
    modes = Modes(REASONING | SHARES).of("a.jsonl", np.arange(10_000) * 977)
    counts = {name: sum(mode.name == name for mode in modes) for name in (OFF, LOW, BUDGET, None)}
    asked = {OFF: 0.1, LOW: 0.05, BUDGET: 0.15, None: 0.7}
    for name, share in asked.items():
        assert abs(counts[name] / 10_000 - share) < 0.01
    budgets = [mode.budget for mode in modes if mode.name == BUDGET]
    assert all(256 <= budget <= 8192 for budget in budgets) and len({*budgets}) > 500
    assert abs(np.median(budgets) / math.sqrt(256 * 8192) - 1) < 0.15  # uniform in its logarithm
    assert all(mode.budget is None for mode in modes if mode.name != BUDGET)


def test_a_row_keeps_its_mode_whatever_is_read_before_it():
    modes, places = Modes(REASONING | SHARES), np.arange(500) * 3
    whole = modes.of("a", places)
    assert [*modes.of("a", places[:7]), *modes.of("a", places[7:])] == whole
    assert modes.of("b", places) != whole
    raised = Modes(REASONING | SHARES | {"off": 0.2}).of("a", places)
    off = {n for n, mode in enumerate(whole) if mode.name == OFF}
    assert off < {n for n, mode in enumerate(raised) if mode.name == OFF}


def test_all_and_none():
    places = np.arange(50)
    assert Modes(REASONING).of("a", places) == [Mode()] * 50
    assert Modes(REASONING | {"off": 1.0}).of("a", places) == [Mode(OFF)] * 50
    alone = {"off": 0.0, "budget": {"share": 1.0, "tokens": [64, 64]}}
    assert Modes(REASONING | alone).of("a", places) == [Mode(BUDGET, 64)] * 50
    assert Modes(REASONING | {"low_effort": 1.0}).of("a", places[:0]) == []


@pytest.mark.parametrize(
    ("turns", "spans"),
    [
        ([user("a"), thought("b")], [(1, 2)]),
        ([thought("b")], [(0, 1)]),
        ([system("s"), user("a"), thought("b"), user("c"), thought("d")], [(2, 3), (4, 5)]),
        ([thought("x"), user("a"), user("b"), thought("c"), user("d")], [(0, 1), (3, 4)]),
        ([user("a"), assistant(""), tool("r"), thought("b"), user("c")], [(1, 4)]),
        ([user("a"), thought("b"), user("c"), thought("d"), thought("e")], [(1, 2), (3, 5)]),
    ],
)
def test_a_sequence_for_each_run_of_turns_after_a_users(turns, spans):
    turns = [{k: v for k, v in turn.items() if v is not None} for turn in turns]
    assert of(turns) == [(first, end, {"enable_thinking": True}) for first, end in spans]
    answers = [n for n, turn in enumerate(turns) if turn["role"] == "assistant"]
    assert sorted(n for n in answers for first, end in spans if first <= n < end) == answers
    told = {"enable_thinking": True, "truncate_history_thinking": False}
    assert of(turns, keeps=True) == [(0, len(turns), told)]


def test_without_reasoning_there_is_one_sequence():
    turns = [user("a"), thought("b"), user("c"), thought("d")]
    assert reasons(turns) and not reasons(without(turns))
    assert of(without(turns)) == of(without(turns), True) == [(0, 4, {"enable_thinking": False})]
    assert [turn["content"] for turn in without(turns)] == ["a", "b", "c", "d"]


def test_what_is_shortened_is_reasoning_alone():
    turns = [user("a b c"), {**thought("d e f"), "reasoning_content": "g h i"}, system("j k l")]
    cut = shortened(turns, 2, lambda text, most: " ".join(text.split()[:most]))
    assert cut == [turns[0], {**turns[1], "reasoning_content": "g h"}, turns[2]]
    assert turns[1]["reasoning_content"] == "g h i"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(small_encoders.chat(tmp_path_factory.mktemp("chat")))


REASONED = {"messages": [user("a"), assistant("b", "one two three"), user("c"), assistant("d")]}


def test_rows_that_reason_are_rendered_in_their_mode(folder):
    """Those that do not are left as they are; what was done is noted."""
    told = {"off": 0.2, "low_effort": 0.2, "budget": {"share": 0.2, "tokens": [1, 2]}}
    plain = {"messages": [user("a"), assistant("b")]}
    made = rendered(folder, [REASONED, plain] * 100, CHATML, reasoning=told)
    modes = Modes(REASONING | told).of("a", np.arange(200))
    expected = {n: mode.name for n, mode in enumerate(modes) if mode.name and n % 2 == 0}
    assert {n: noted[0] for n, noted in made.noted.items()} == expected
    assert {*expected.values()} == {OFF, LOW, BUDGET}
    for noted in made.noted.values():
        assert noted[1:] == ([CUT] if noted[0] == BUDGET else [])


def test_off_is_as_if_nobody_had_reasoned(folder):
    made = rendered(folder, [REASONED], reasoning={"off": 1.0})
    plain = [user("a"), assistant("b"), user("c"), assistant("d")]
    same = rendered(folder, [{"messages": plain}])
    assert [s.ids.tolist() for s in made.kept[0]] == [s.ids.tolist() for s in same.kept[0]]
    assert made.noted == {0: [OFF]} and same.noted == {}


def test_low_effort_is_told_to_the_template(folder):
    made = rendered(folder, [REASONED], reasoning={"low_effort": 1.0})
    first, second = (stretches(folder, sequence) for sequence in made.kept[0])
    assert "a\n\n{reasoning effort: low}<|im_end|>" in first[0][0]
    assert first[1] == ("one two three\n</think>\nb<|im_end|>\n", 1)
    assert (
        "a<|im_end|>" in second[0][0] and "c\n\n{reasoning effort: low}<|im_end|>" in second[0][0]
    )


THOUGHTS = {
    "words": "the quick fox, 東京 👍🏽 हिन्दी\n" * 9,
    "faces": "👍🏽" * 40,
    "letter": "a" * 99,
}


@pytest.mark.parametrize("thought", THOUGHTS)
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 7, 16])
def test_a_budget_cuts_reasoning_to_its_tokens_and_nothing_else(folder, thought, budget):
    thought = THOUGHTS[thought]
    turns = [user("a"), assistant("b " * 40, thought), tool("c " * 40), assistant("d", "short")]
    told = {"share": 1.0, "tokens": [budget, budget]}
    made = rendered(folder, [{"messages": turns}], reasoning={"budget": told})
    assert made.noted == {0: [BUDGET, CUT]}
    (sequence,) = [stretches(folder, sequence) for sequence in made.kept[0]]
    *cut, rest = sequence[1][0].split("\n</think>\n")
    cut = "".join(cut)
    assert rest == "b " * 40 + "<|im_end|>\n"
    assert thought.startswith(cut)
    encode = folder.huggingface.encode
    assert budget - 8 <= len(encode(cut, add_special_tokens=False)) <= budget
    assert f"a\n\nThinking budget: {budget} tokens.<|im_end|>" in sequence[0][0]
    (whole,) = rendered(folder, [{"messages": turns}]).kept[0]
    whole = stretches(folder, whole)
    assert sequence[2][0] == whole[2][0]
    assert whole[1][0] == f"{thought}\n</think>\n{rest}"


def test_a_budget_that_is_enough_is_told_and_cuts_nothing(folder):
    told = {"share": 1.0, "tokens": [500, 500]}
    made = rendered(folder, [REASONED], reasoning={"budget": told})
    assert made.noted == {0: [BUDGET]}
    text = "".join(text for text, _ in stretches(folder, made.kept[0][0]))
    bare = "".join(text for text, _ in stretches(folder, rendered(folder, [REASONED]).kept[0][0]))
    assert text.replace("\n\nThinking budget: 500 tokens.", "") == bare != text
