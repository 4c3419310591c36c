"""Conversations to token ids and loss mask, through a Jinja chat template.

The mask is 1 exactly on what the model writes: the text of assistant turns and their terminator.
Header and generation prompt of such a turn belong to what precedes it. Each stretch of text with
one mask value is encoded on its own, so that the boundary after the generation prompt is a token
boundary, as it is at inference.

A row in which an assistant reasons gives one sequence per run of turns after a user turn, with
thinking on and only that run trained: the template drops reasoning of earlier turns, as chat
servers do. Any other row gives one sequence with thinking off and every assistant turn trained.
Reasoning that is missing, null or blank is no reasoning.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from nemoflow import corpus
from nemoflow import tokenizer as tokenizers_of
from nemoflow.corpus import Place, Row
from nemoflow.errors import UserError
from nemoflow.messages import Drop, Message, Unusable, clean, parsed, strings
from nemoflow.rows import RowCount
from nemoflow.spool import SpoolWriter


@dataclass(frozen=True)
class Sequence:
    """A training sequence: token ids int32[n]; mask uint8[n], 1 where the token is trained."""

    ids: np.ndarray
    mask: np.ndarray


def render(row: Row, template: str, tokenizer: Tokenizer, settings: dict) -> list[Sequence] | Drop:
    """The sequences of one row, or why there are none; see `Renderer`."""
    return Renderer(template, tokenizer, settings).render(row)


def make(
    settings: Mapping[str, Any], tokenizer_dir: str, out_dir: Path, cache: Path
) -> dict[str, Any]:
    """Render the source of a spec into a spool; what its manifest tells. See `render_source`."""
    source, counts = corpus.pin(settings["source"]), RowCount()
    files = corpus.list_files(source, cache)
    rows = corpus.read_source(source, files, cache, counts)
    facts = render_source(rows, settings["template"], tokenizer_dir, settings, out_dir, counts)
    read = [vars(file) for file in files]
    return {"source_files": read, "pinned": corpus.pinned(source), **facts}


def render_source(
    rows: Iterable[tuple[Place, Row]],
    template: str,
    tokenizer_dir: str | Path,
    settings: dict[str, Any],
    out_dir: str | Path,
    counts: RowCount,
) -> dict[str, Any]:
    """Render rows (of `corpus.read_source`, which counts them in `counts`) into a spool.

    `settings`: messages_field, tools_field, used_in (None: every row), max_dropped. `out_dir` is
    emptied first. Returns {"rows": {"in", "kept", "dropped"}, "sequences", "tokens",
    "trained_tokens"}. UserError when too many rows are faulty or none is left.
    """
    renderer = Renderer(template, tokenizers_of.load(tokenizer_dir), settings)
    written = {"sequences": 0, "tokens": 0, "trained_tokens": 0}
    with SpoolWriter(out_dir, tokenizers_of.eos_id(tokenizer_dir)) as spool:
        for place, row in rows:
            rendered = renderer.render(row)
            if isinstance(rendered, Drop):
                where = f"{place.path}, byte {place.offset}"
                counts.drop(rendered.reason, ": ".join(filter(None, (where, rendered.detail))))
                continue
            counts.kept += 1
            for sequence in rendered:
                spool.add(sequence.ids, sequence.mask)
                written["sequences"] += 1
                written["tokens"] += len(sequence.ids)
                written["trained_tokens"] += int(sequence.mask.sum())
        counts.check(settings["max_dropped"])
        if not counts.kept:
            raise UserError(f"no conversation is left to train on, rows: {counts.as_dict()}")
    return {"rows": counts.as_dict(), **written}


class Renderer:
    """One template, one tokenizer, many rows.

    UserError when the template is not valid Jinja.
    """

    def __init__(self, template: str, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
        self._template = compile_template(template)
        self._tokenizer = tokenizer
        self._settings = settings
        special = [t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special]
        self._control = re.compile("|".join(map(re.escape, special)) or r"(?!)")

    def render(self, row: Row) -> list[Sequence] | Drop:
        """The sequences of a row, or one of these reasons to drop it.

        used_in (a filter), missing_messages, malformed_message, unknown_role, no_assistant,
        bad_tool_arguments, bad_tools, control_token (content holds a special token of the
        tokenizer, which would become one), tool_call_without_tools, template_error,
        template_not_incremental (a turn is written otherwise once another follows), and
        no_trained_tokens.
        """
        try:
            self._check_used_in(row)
            messages = self._messages(row)
            tools = self._tools(row)
            self._check_control(messages, tools)
            reasons = any("reasoning_content" in message for message in messages)
            turns = list(_runs(messages)) if reasons else [(0, len(messages))]
            arguments = dict(row.get("chat_template_kwargs") or {})
            arguments |= {"tools": tools, "enable_thinking": reasons}
            sequences = [self._sequence(messages[:end], first, arguments) for first, end in turns]
        except Unusable as error:
            return error.drop
        trained = [sequence for sequence in sequences if sequence.mask.any()]
        return trained or Drop("no_trained_tokens")

    def _check_used_in(self, row: Row) -> None:
        wanted = self._settings["used_in"]
        if wanted is None:
            return
        names = row.get("used_in") or []
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",")]
        if wanted not in names:
            raise Unusable("used_in")

    def _messages(self, row: Row) -> list[Message]:
        messages = row.get(self._settings["messages_field"])
        if not isinstance(messages, list) or not messages:
            raise Unusable("missing_messages")
        cleaned = [clean(message) for message in messages]
        if not any(message["role"] == "assistant" for message in cleaned):
            raise Unusable("no_assistant")
        return cleaned

    def _tools(self, row: Row) -> list[dict] | None:
        tools = row.get(self._settings["tools_field"])
        if isinstance(tools, str):
            tools = parsed(tools or "null", "bad_tools")
        if tools is not None and not isinstance(tools, list):
            raise Unusable("bad_tools")
        return tools or None

    def _check_control(self, messages: list[Message], tools: list[dict] | None) -> None:
        written = "\n".join(strings([messages, tools]))
        if found := self._control.search(written):
            raise Unusable("control_token", found[0])
        if "<tool_call>" in written and not tools and "# Tools" not in written:
            raise Unusable("tool_call_without_tools")

    def _sequence(self, messages: list[Message], first: int, arguments: dict) -> Sequence:
        """All messages as one sequence; assistant turns from index `first` on are trained."""
        text = self._text(messages, arguments)
        ids, mask, at = [], [], 0
        for index in range(first, len(messages)):
            if messages[index]["role"] != "assistant":
                continue
            start = self._prompt_end(text, messages[:index], arguments)
            end = len(text)
            if index + 1 < len(messages):
                end = _shared(text, self._text(messages[: index + 1], arguments))
            if end is None or not at <= start <= end:
                raise Unusable("template_not_incremental", f"message {index}")
            for piece, trained in ((text[at:start], 0), (text[start:end], 1)):
                encoded = self._tokenizer.encode(piece, add_special_tokens=False).ids
                ids += encoded
                mask += [trained] * len(encoded)
            at = end
        rest = self._tokenizer.encode(text[at:], add_special_tokens=False).ids
        return Sequence(np.array(ids + rest, np.int32), np.array(mask + [0] * len(rest), np.uint8))

    def _text(self, messages: list[Message], arguments: dict, prompt: bool = False) -> str:
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=prompt, **arguments
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise Unusable("template_error", str(error)) from error

    def _prompt_end(self, text: str, before: list[Message], arguments: dict) -> int:
        """Where the generation prompt after the messages `before` ends in `text`.

        An assistant turn without reasoning begins as the prompt with thinking off does.
        """
        thinking = arguments["enable_thinking"]
        prompts = [
            self._text(before, arguments | {"enable_thinking": on}, prompt=True)
            for on in (thinking, not thinking)
        ]
        for prompt in prompts:
            if text.startswith(prompt):
                return len(prompt)
        for prompt in prompts:
            if (end := _shared(text, prompt)) is not None:
                return end
        raise Unusable("template_not_incremental", "generation prompt")


def compile_template(text: str) -> Template:
    """A chat template as transformers compiles it, sandboxed; UserError with the faulty line."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    try:
        return environment.from_string(text)
    except TemplateSyntaxError as error:
        raise UserError(f"chat template, line {error.lineno}: {error.message}") from error


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _shared(text: str, beginning: str) -> int | None:
    """How much of `beginning` starts `text`, if all that is missing are blanks at its end.

    Templates that end in a line break write it after a part, but not in the midst of the whole.
    """
    if text.startswith(beginning):
        return len(beginning)
    length = len(os.path.commonprefix([text, beginning]))
    return None if beginning[length:].strip() else length


def _runs(messages: list[Message]) -> Iterator[tuple[int, int]]:
    """(first, end) of each run of messages after a user turn that holds an assistant turn."""
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    starts, ends = [0, *(index + 1 for index in users)], [*users, len(messages)]
    for first, end in zip(starts, ends, strict=True):
        if any(message["role"] == "assistant" for message in messages[first:end]):
            yield first, end
