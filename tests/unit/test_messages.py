"""Messages in one form; what a row is dropped for: test_chat."""

import pytest

from nemoflow.messages import Unusable, clean, parsed, strings


def test_one_form():
    assert clean({"role": "user", "content": None}) == {"role": "user", "content": ""}
    parts = [{"type": "text", "text": "a"}, "b"]
    assert clean({"role": "user", "content": parts})["content"] == "ab"
    message = {"role": "assistant", "content": "", "reasoning_content": " ", "tool_calls": None}
    assert clean(message) == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
def test_arguments_become_objects(arguments):
    for call in (
        {"name": "f", "arguments": arguments},
        {"function": {"name": "f", "arguments": arguments}},
    ):
        (cleaned,) = clean({"role": "assistant", "content": "", "tool_calls": [call]})["tool_calls"]
        assert cleaned["function"] == {"name": "f", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (None, "malformed_message"),
        ({"content": "a"}, "malformed_message"),
        ({"role": "user", "content": [{"type": "image"}]}, "malformed_message"),
        ({"role": "owner", "content": ""}, "unknown_role"),
        ({"role": "assistant", "tool_calls": [{"name": 3}]}, "malformed_message"),
        (
            {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]},
            "bad_tool_arguments",
        ),
    ],
)
def test_what_has_no_form(message, reason):
    with pytest.raises(Unusable) as caught:
        clean(message)
    assert caught.value.drop.reason == reason


def test_strings_finds_every_one():
    assert list(strings([{"a": ["b", 1, {"c": None}]}, "d"])) == ["a", "b", "c", "d"]
    with pytest.raises(Unusable):
        parsed("{", "bad_tools")
