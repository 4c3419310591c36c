"""Conversations to token ids and loss mask, through a chat template.

Each stretch of text with one mask value is encoded on its own, so that the boundary after the
generation prompt is a token boundary, as it is at inference. What is trained: `masks`; which
sequences a row gives: `reasoning`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nemoflow import encoding, filters, jsonl, masks, messages, reasoning
from nemoflow.chat_template import Template
from nemoflow.corpus import Row
from nemoflow.errors import UserError
from nemoflow.messages import Message
from nemoflow.rows import Drop, Unusable
from nemoflow.splits import point
from nemoflow.vocabulary import HUGGINGFACE, Folder

Place = int  # of a row in its file: the byte where its line begins, or its number in Parquet
Unread = bytes | Row | UnicodeDecodeError  # a line of JSON, or a row of Parquet


class Sequence(NamedTuple):
    """A training sequence: token ids int32[n]; mask uint8[n], 1 where the token is trained."""

    ids: np.ndarray
    mask: np.ndarray


@dataclass
class Rendered:
    """Rows of a file, rendered: `kept` {number of the row among them: its sequences}.

    `dropped` {number: why}; `keys` {number: what makes the row's id its own}, of kept rows that
    have one; `noted` {number: what was done to its reasoning}.
    """

    kept: dict[int, list[Sequence]] = field(default_factory=dict)
    dropped: dict[int, Drop] = field(default_factory=dict)
    keys: dict[int, int] = field(default_factory=dict)
    noted: dict[int, list[str]] = field(default_factory=dict)


class Renderer:
    """One template, one tokenizer, many rows.

    `settings`: template (its text), messages_field, tools_field, id_field,
    duplicates, reasoning (of `reasoning.Modes`); used_in and filters, where there are some.

    Raises:
        UserError: the template is not valid Jinja, or the folder holds no tokenizer.json.
    """

    def __init__(
        self, folder: Folder, settings: Mapping[str, Any], encoder: encoding.Encoder | None = None
    ):
        if folder.kind != HUGGINGFACE:
            raise UserError(f"{folder.path}: chats need a tokenizer.json, not {folder.file.name}")
        self.template = Template(settings["template"], special_tokens(folder))
        self.encoder = encoder or encoding.exact(folder)
        self._folder = folder
        self._settings = settings
        self._filters = filters.Filters(settings.get("used_in"), settings.get("filters"))
        self._modes = reasoning.Modes(settings["reasoning"])
        self._control = re.compile("|".join(map(re.escape, folder.specials.values())) or r"(?!)")

    def render(self, path: str, rows: list[tuple[Place, Unread]]) -> Rendered:
        """Render rows of a file.

        Reasons to drop one: not_json, not_an_object, not_utf8; used_in and filter:FIELD (asked
        for); missing_messages, empty_messages, malformed_message, unknown_role, wrong_role_order,
        no_assistant, bad_tool_arguments, bad_tools, bad_template_arguments; control_token (content
        holds a special token, which would become one), tool_call_without_tools; template_error,
        template_not_incremental (a turn is written otherwise once another follows);
        no_trained_tokens.
        """
        made, texts = Rendered(), []
        places = np.array([place for place, _ in rows], np.int64)
        modes = self._modes.of(path, places)
        for number, ((_, unread), mode) in enumerate(zip(rows, modes, strict=True)):
            try:
                row = read(unread)
                noted: list[str] = []
                texts.append((number, self._pieces(row, mode, noted)))
            except Unusable as error:
                made.dropped[number] = error.drop
                continue
            if noted:
                made.noted[number] = noted
            if (key := self._key(row)) is not None:
                made.keys[number] = key
        for number, sequences in self._encoded(texts):
            if any(sequence.mask[1:].any() for sequence in sequences):  # nothing comes before 0
                made.kept[number] = sequences
            else:
                made.dropped[number] = Drop("no_trained_tokens")
        self.encoder.rest()
        return made

    def _pieces(self, row: Row, mode: reasoning.Mode, noted: list[str]) -> list[list[masks.Piece]]:
        """The stretches of each sequence of a row."""
        if reason := self._filters.refusal(row):
            raise Unusable(reason)
        given = self._messages(row)
        tools = self._tools(row)
        self._check_control(given, tools)
        arguments = row.get("chat_template_kwargs") or {}
        if not isinstance(arguments, dict):
            raise Unusable("bad_template_arguments", "chat_template_kwargs is no object")
        arguments = {**arguments, "tools": tools, "documents": None}
        if reasoning.reasons(given) and mode.name:
            noted.append(mode.name)
            given, told = self._in_mode(given, mode, noted)
            arguments |= told
        found = []
        for part in reasoning.parts(given, self._modes.keeps_history):
            told = {**arguments, **part.arguments}
            told["chat_template_kwargs"] = dict(told)  # where NVIDIA's own templates look
            found.append(masks.pieces(self.template, given[: part.end], part.first, told))
        return found

    def _in_mode(
        self, given: list[Message], mode: reasoning.Mode, noted: list[str]
    ) -> tuple[list[Message], dict[str, Any]]:
        """The messages as a mode has them, and what the template is told of it."""
        if mode.budget is None:
            low = mode.name == reasoning.LOW
            return (given, {"low_effort": True}) if low else (reasoning.without(given), {})
        short = reasoning.shortened(given, mode.budget, self._cut)
        if short != given:
            noted.append(reasoning.CUT)
        return short, {"reasoning_budget": mode.budget}

    def _cut(self, text: str, most: int) -> str:
        """The beginning of a text, at most `most` tokens of it; a character is never cut apart."""
        offsets = self._folder.huggingface.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= most:
            return text
        while most and offsets[most][0] < offsets[most - 1][1]:
            most -= 1
        return text[: offsets[most - 1][1]] if most else ""

    def _messages(self, row: Row) -> list[Message]:
        return messages.cleaned(filters.field(row, self._settings["messages_field"]))

    def _tools(self, row: Row) -> list[dict] | None:
        tools = filters.field(row, self._settings["tools_field"])
        if isinstance(tools, str):
            tools = messages.parsed(tools or "null", "bad_tools")
        if tools is filters.MISSING or not tools:
            return None
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise Unusable("bad_tools", "they are no list of objects")
        return tools

    def _check_control(self, given: list[Message], tools: list[dict] | None) -> None:
        written = "\n".join(messages.strings([given, tools]))
        if found := self._control.search(written):
            raise Unusable("control_token", found[0])
        if "<tool_call>" in written and not tools and "# Tools" not in written:
            raise Unusable("tool_call_without_tools")

    def _key(self, row: Row) -> int | None:
        if self._settings["duplicates"] == "keep":
            return None
        value = filters.field(row, self._settings["id_field"])
        if value is filters.MISSING or value is None or isinstance(value, list | dict):
            return None
        return point(0, type(value).__name__, value)

    def _encoded(
        self, rows: list[tuple[int, list[list[masks.Piece]]]]
    ) -> list[tuple[int, list[Sequence]]]:
        """(number, sequences) of rows (number, stretches of each sequence), encoded at once."""
        stretches = [
            piece for _, sequences in rows for pieces in sequences for piece in pieces if piece[0]
        ]
        ids, lengths = self.encoder.encode_parts([text.encode() for text, _ in stretches])
        mask = np.repeat(np.array([trained for _, trained in stretches], np.uint8), lengths)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        at, found = 0, []
        for number, sequences in rows:
            made = []
            for pieces in sequences:
                count = sum(bool(text) for text, _ in pieces)
                span = slice(ends[at], ends[at + count])
                made.append(Sequence(ids[span], mask[span]))
                at += count
            found.append((number, made))
        return found


def special_tokens(folder: Folder) -> dict[str, str]:
    """The tokens that templates know by name, as transformers gives them."""
    told = {key: value for key, value in folder.config.items() if key.endswith("_token")}
    contents = {
        key: value.get("content") if isinstance(value, dict) else value
        for key, value in told.items()
    }
    return {key: value for key, value in contents.items() if isinstance(value, str)}


def read(unread: Unread) -> Row:
    """A row as an object; Unusable: not_json, not_an_object, not_utf8."""
    if isinstance(unread, dict):
        return messages.without_nulls(unread)
    if isinstance(unread, UnicodeDecodeError):
        raise Unusable("not_utf8")
    row, fault = jsonl.parse(unread)
    if fault:
        raise Unusable(fault, str(row))
    return row
