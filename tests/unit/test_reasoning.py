"""Which rows keep their reasoning, and which sequences they give."""

import math

import numpy as np
import pytest

from nemoflow.reasoning import BUDGET, LOW, OFF, Mode, Modes, parts, reasons, shortened, without
from small_chats import assistant, system, tool, user

NOTHING = {"off": 0.0, "low_effort": 0.0, "history": "drop"}
SHARES = {"off": 0.1, "low_effort": 0.05, "budget": {"share": 0.15, "tokens": [256, 8192]}}


def thought(content):
    return {"role": "assistant", "content": content, "reasoning_content": "why"}


def of(turns, keeps=False):
    return [(part.first, part.end, part.arguments) for part in parts(turns, keeps)]


def test_the_asked_shares_within_a_hundredth():
    modes = Modes(NOTHING | SHARES).of("a.jsonl", np.arange(10_000) * 977)
    counts = {name: sum(mode.name == name for mode in modes) for name in (OFF, LOW, BUDGET, None)}
    asked = {OFF: 0.1, LOW: 0.05, BUDGET: 0.15, None: 0.7}
    for name, share in asked.items():
        assert abs(counts[name] / 10_000 - share) < 0.01
    budgets = [mode.budget for mode in modes if mode.name == BUDGET]
    assert all(256 <= budget <= 8192 for budget in budgets) and len({*budgets}) > 500
    assert abs(np.median(budgets) / math.sqrt(256 * 8192) - 1) < 0.15  # uniform in its logarithm
    assert all(mode.budget is None for mode in modes if mode.name != BUDGET)


def test_a_row_keeps_its_mode_whatever_is_read_before_it():
    modes, places = Modes(NOTHING | SHARES), np.arange(500) * 3
    whole = modes.of("a", places)
    assert [*modes.of("a", places[:7]), *modes.of("a", places[7:])] == whole
    assert modes.of("b", places) != whole
    raised = Modes(NOTHING | SHARES | {"off": 0.2}).of("a", places)
    off = {n for n, mode in enumerate(whole) if mode.name == OFF}
    assert off < {n for n, mode in enumerate(raised) if mode.name == OFF}


def test_all_and_none():
    places = np.arange(50)
    assert Modes(NOTHING).of("a", places) == [Mode()] * 50
    assert Modes(NOTHING | {"off": 1.0}).of("a", places) == [Mode(OFF)] * 50
    alone = {"off": 0.0, "budget": {"share": 1.0, "tokens": [64, 64]}}
    assert Modes(NOTHING | alone).of("a", places) == [Mode(BUDGET, 64)] * 50
    assert Modes(NOTHING | {"low_effort": 1.0}).of("a", places[:0]) == []


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
