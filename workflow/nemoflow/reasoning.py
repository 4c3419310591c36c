"""What becomes of an assistant's reasoning: which rows keep it, and which sequences they give.

A row in which an assistant reasons gives one sequence for each run of turns after a user's, with
thinking on and that run alone trained: templates leave out reasoning of earlier turns, as chat
servers do. With `history: keep`, and for any other row, it is one sequence in which every
assistant's turn is trained. Reasoning that is missing, null or blank is no reasoning.

The shares of rows that are rendered otherwise are those of the recipes: without it (off), with
`low_effort` for the template, or cut to a budget of tokens that the template is told, too
(`reasoning_budget`), so that a model learns to answer when it is made to stop.
"""

from collections.abc import Callable, Iterator, Mapping
from math import exp, log
from typing import Any, NamedTuple

import numpy as np

from nemoflow.messages import Message
from nemoflow.splits import POINTS, points

OFF, LOW, BUDGET = "reasoning_off", "low_effort", "reasoning_budget"
CUT = "reasoning_cut"


class Mode(NamedTuple):
    """How a row that reasons is rendered: OFF, LOW, BUDGET (and how many tokens), or None."""

    name: str | None = None
    budget: int | None = None


class Part(NamedTuple):
    """A sequence of a row: messages up to `end`, those from `first` on trained; its arguments."""

    first: int
    end: int
    arguments: dict[str, Any]


class Modes:
    """Chooses the mode of each row, by a hash of its place in the source's files.

    `settings`: off, low_effort (shares of the rows), budget ({"share", "tokens": [least, most]},
    or None), history (drop or keep).
    """

    def __init__(self, settings: Mapping[str, Any]):
        budget = settings.get("budget") or {"share": 0.0, "tokens": [1, 1]}
        shares = [settings["off"], settings["low_effort"], budget["share"]]
        self._edges = np.cumsum(shares)
        self._least, self._most = map(log, budget["tokens"])
        self.keeps_history = settings["history"] == "keep"

    def of(self, path: str, places: np.ndarray) -> list[Mode]:
        """The modes of rows at some places of a file."""
        if not self._edges[-1]:
            return [Mode()] * len(places)
        chosen = points(0, "reasoning", path, places) / POINTS
        drawn = points(1, "reasoning", path, places) / POINTS
        return [self._mode(*pair) for pair in zip(chosen, drawn, strict=True)]

    def _mode(self, chosen: float, drawn: float) -> Mode:
        which = int(np.searchsorted(self._edges, chosen, side="right"))
        if which == 2:
            return Mode(BUDGET, round(exp(self._least + drawn * (self._most - self._least))))
        return Mode((OFF, LOW, None, None)[which])


def reasons(messages: list[Message]) -> bool:
    """Whether an assistant reasons."""
    return any("reasoning_content" in message for message in messages)


def without(messages: list[Message]) -> list[Message]:
    """The messages without reasoning."""
    return [
        {key: value for key, value in message.items() if key != "reasoning_content"}
        for message in messages
    ]


def shortened(messages: list[Message], most: int, cut: Callable[[str, int], str]) -> list[Message]:
    """The messages with no reasoning of more than `most` tokens; `cut` shortens a text to them."""
    return [
        {**message, "reasoning_content": cut(message["reasoning_content"], most)}
        if "reasoning_content" in message
        else message
        for message in messages
    ]


def parts(messages: list[Message], keeps_history: bool) -> Iterator[Part]:
    """The sequences that messages give, with the template's arguments on thinking."""
    thinks = reasons(messages)
    if not thinks or keeps_history:
        history = {"truncate_history_thinking": False} if thinks else {}
        yield Part(0, len(messages), {"enable_thinking": thinks, **history})
        return
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    starts, ends = [0, *(index + 1 for index in users)], [*users, len(messages)]
    for first, end in zip(starts, ends, strict=True):
        if any(message["role"] == "assistant" for message in messages[first:end]):
            yield Part(first, end, {"enable_thinking": True})
