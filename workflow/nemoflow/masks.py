"""What of a rendered conversation is trained: the text that the model writes, and nothing else.

That is an assistant's turn with the terminator after it; its header and generation prompt belong
to what comes before. A template says so itself by enclosing it (see `chat_template`), or it is
found by rendering one message more at a time.
"""

import os
from collections.abc import Mapping
from typing import Any

from nemoflow.chat_template import BEGIN, END, Template
from nemoflow.messages import Message
from nemoflow.rows import Unusable

Piece = tuple[str, bool]


def pieces(
    template: Template, messages: list[Message], first: int, arguments: Mapping[str, Any]
) -> list[Piece]:
    """A conversation in stretches (text, trained); turns before message `first` are not trained.

    Raises:
        Unusable: template_error; template_not_incremental, where a turn is written otherwise once
            another follows.
    """
    find = marked if template.marked else incremental
    return find(template, messages, first, arguments)


def marked(
    template: Template, messages: list[Message], first: int, arguments: Mapping[str, Any]
) -> list[Piece]:
    """The stretches of a template that encloses what the model writes."""
    head, *rest = template.marked_text(messages, arguments).split(BEGIN)
    parts = [(written, after) for written, _, after in (part.partition(END) for part in rest)]
    earlier = untrained(template, messages, first, arguments, head, parts)
    found: list[Piece] = [(head, False)]
    for number, (written, after) in enumerate(parts):
        found += [(written, number >= earlier), (after, False)]
    return found


def untrained(
    template: Template,
    messages: list[Message],
    first: int,
    arguments: Mapping[str, Any],
    head: str,
    parts: list[tuple[str, str]],
) -> int:
    """How many of the enclosed stretches are of turns before message `first`, which a user's ends.

    `parts` are (enclosed, what follows), after `head`. Where the template encloses nothing before
    that user's turn, `head` has it; else the messages up to there are rendered by themselves.
    """
    turns = [message["role"] == "assistant" for message in messages]
    before, of_these = sum(turns[:first]), sum(turns[first:])
    if not before:
        return 0
    asked = messages[first - 1]["content"].strip()
    if len(parts) == of_these and asked and asked in head:
        return 0
    whole = "".join([head, *(text for part in parts for text in part)])
    start = shared(whole, template.text(messages[:first], arguments))
    if start is None:
        if len(parts) == before + of_these:
            return before
        raise Unusable("template_not_incremental", f"message {first}")
    at = len(head)
    for number, part in enumerate(parts):
        if at >= start:
            return number
        at += sum(map(len, part))
    return len(parts)


def incremental(
    template: Template, messages: list[Message], first: int, arguments: Mapping[str, Any]
) -> list[Piece]:
    """The stretches of any template, by the text of the messages up to each assistant's turn."""
    text, found, at = template.text(messages, arguments), [], 0
    for index in range(first, len(messages)):
        if messages[index]["role"] != "assistant":
            continue
        start = prompt_end(template, text, messages[:index], arguments)
        end: int | None = len(text)
        if index + 1 < len(messages):
            end = shared(text, template.text(messages[: index + 1], arguments))
        if end is None or not at <= start <= end:
            raise Unusable("template_not_incremental", f"message {index}")
        found += [(text[at:start], False), (text[start:end], True)]
        at = end
    return [*found, (text[at:], False)]


def prompt_end(
    template: Template, text: str, before: list[Message], arguments: Mapping[str, Any]
) -> int:
    """Where the generation prompt after the messages `before` ends in `text`.

    An assistant turn without reasoning begins as the prompt with thinking off does.
    """
    thinking = arguments["enable_thinking"]
    prompts = [
        template.text(before, with_thinking(arguments, on), prompt=True)
        for on in (thinking, not thinking)
    ]
    for prompt in prompts:
        if text.startswith(prompt):
            return len(prompt)
    for prompt in prompts:
        if (end := shared(text, prompt)) is not None:
            return end
    raise Unusable("template_not_incremental", "generation prompt")


def with_thinking(arguments: Mapping[str, Any], on: bool) -> dict[str, Any]:
    """The arguments with thinking on or off, wherever a template looks for it."""
    inner = {**arguments["chat_template_kwargs"], "enable_thinking": on}
    return {**arguments, "enable_thinking": on, "chat_template_kwargs": inner}


def shared(text: str, beginning: str) -> int | None:
    """How much of `beginning` starts `text`, if all that is missing are blanks at its end.

    Templates that end in a line break write it after a part, but not in the midst of the whole.
    """
    if text.startswith(beginning):
        return len(beginning)
    length = len(os.path.commonprefix([text, beginning]))
    return None if beginning[length:].strip() else length
