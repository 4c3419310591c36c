"""The messages of a conversation, brought to one form before a template sees them."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")


class Drop(NamedTuple):
    """Why a row cannot be used."""

    reason: str
    detail: str = ""


class Unusable(ValueError):
    """A row that cannot be used; carries its `Drop`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.drop = Drop(reason, detail)


def clean(message: Any) -> Message:
    """A message with content as text, arguments of tool calls as objects, no blank reasoning.

    Raises Unusable: malformed_message, unknown_role, bad_tool_arguments.
    """
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Unusable("malformed_message")
    if message["role"] not in ROLES:
        raise Unusable("unknown_role", message["role"])
    cleaned = {**message, "content": _content(message.get("content"))}
    reasoning = cleaned.pop("reasoning_content", None)
    if isinstance(reasoning, str) and reasoning.strip():
        cleaned["reasoning_content"] = reasoning
    calls = cleaned.pop("tool_calls", None)
    if calls:
        cleaned["tool_calls"] = [_call(call) for call in calls]
    return cleaned


def _content(content: Any) -> str:
    """The text of a message's content: a string, null, or a list of text parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    if not isinstance(content, str):
        raise Unusable("malformed_message", "content is not text")
    return content


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unusable("malformed_message", "tool call")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = parsed(arguments, "bad_tool_arguments")
    if not isinstance(arguments, dict):
        raise Unusable("bad_tool_arguments")
    return {**call, "function": {**function, "arguments": arguments}}


def parsed(text: str, reason: str) -> Any:
    """The value of a JSON text; Unusable for that reason when it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Unusable(reason, str(error)) from error


def strings(value: Any) -> Iterator[str]:
    """Every string in nested lists and mappings, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, content in value.items():
            yield key
            yield from strings(content)
    elif isinstance(value, list):
        for content in value:
            yield from strings(content)
