"""The messages of a conversation, brought to one form before a template sees them."""

from typing import Any

import msgspec

from nemoflow.rows import Unusable

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")


def cleaned(messages: Any) -> list[Message]:
    """The messages of a row, each as `clean` makes it, in an order that a chat can have.

    Raises:
        Unusable: missing_messages, empty_messages, no_assistant; wrong_role_order, where a system
            message is not the first, or a tool's answers nobody; and as `clean`.
    """
    if not isinstance(messages, list):
        raise Unusable("missing_messages")
    if not messages:
        raise Unusable("empty_messages")
    found = [clean(message) for message in messages]
    roles = [message["role"] for message in found]
    for index, (before, role) in enumerate(zip([None, *roles], roles, strict=False)):
        if role == "system" and index or role == "tool" and before not in ("assistant", "tool"):
            raise Unusable("wrong_role_order", f"message {index}: {role} after {before}")
    if "assistant" not in roles:
        raise Unusable("no_assistant")
    return found


def clean(message: Any) -> Message:
    """A message with content as text, arguments of tool calls as objects, no blank reasoning.

    Keys that are null are left out, as Parquet fills them in.

    Raises:
        Unusable: malformed_message, unknown_role, bad_tool_arguments.
    """
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Unusable("malformed_message", "no role")
    if message["role"] not in ROLES:
        raise Unusable("unknown_role", message["role"])
    cleaned = {key: value for key, value in message.items() if value is not None}
    reasoning = cleaned.pop("reasoning_content", "")
    calls = cleaned.pop("tool_calls", None)
    if not isinstance(reasoning, str):
        raise Unusable("malformed_message", "reasoning_content is not text")
    if "content" not in cleaned and not (calls or reasoning or message["role"] == "tool"):
        raise Unusable("malformed_message", f"{message['role']} without content")
    cleaned["content"] = content(cleaned.get("content"))
    if reasoning.strip():
        cleaned["reasoning_content"] = reasoning
    if calls:
        if not isinstance(calls, list):
            raise Unusable("malformed_message", "tool_calls is not a list")
        cleaned["tool_calls"] = [called(call) for call in calls]
    return cleaned


def content(value: Any) -> str:
    """The text of a message's content: a string, null, or a list of text parts."""
    if value is None:
        return ""
    if isinstance(value, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in value]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    if not isinstance(value, str):
        raise Unusable("malformed_message", "content is not text")
    return value


def called(call: Any) -> dict[str, Any]:
    """A tool call with its arguments as an object."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unusable("malformed_message", "tool call without a name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = parsed(arguments, "bad_tool_arguments")
    if not isinstance(arguments, dict):
        raise Unusable("bad_tool_arguments", "they are no object")
    return {**call, "function": {**function, "arguments": arguments}}


def parsed(text: str, reason: str) -> Any:
    """The value of a JSON text; Unusable for that reason when it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unusable(reason, str(error)) from error


def without_nulls(value: Any) -> Any:
    """A value of Parquet without the keys that its columns fill in where a row has none."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def strings(value: Any) -> list[str]:
    """Every string in nested lists and mappings, keys included, in no particular order."""
    found, left = [], [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, dict):
            found.extend(each)
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
    return found
