"""Messages in one form; what a row is dropped for: test_chat."""

import pytest

from nemoflow.messages import clean, cleaned, parsed, strings, without_nulls
from nemoflow.rows import Unusable


def test_one_form():
    assert clean({"role": "tool", "content": None}) == {"role": "tool", "content": ""}
    for key in ("reasoning_content", "content"):
        assert clean({"role": "assistant", key: "a"})["content"] == ("" if key[0] == "r" else "a")
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
        ({"role": "user", "content": None}, "malformed_message"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "malformed_message"),
        ({"role": "assistant", "content": "", "reasoning_content": 3}, "malformed_message"),
        ({"role": "assistant", "tool_calls": {"name": "f"}}, "malformed_message"),
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


ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


@pytest.mark.parametrize("order", ["sua", "ua", "a", "uatta", "uuaau", "sat", "uauat"])
def test_orders_that_a_chat_can_have(order):
    given = [{"role": ROLES[each], "content": ""} for each in order]
    assert [message["role"] for message in cleaned(given)] == [ROLES[each] for each in order]


@pytest.mark.parametrize(
    ("order", "detail"),
    [
        ("usa", "message 1: system after user"),
        ("ssua", "message 1: system after system"),
        ("tua", "message 0: tool after None"),
        ("uta", "message 1: tool after user"),
        ("sta", "message 1: tool after system"),
    ],
)
def test_orders_that_it_cannot(order, detail):
    with pytest.raises(Unusable) as caught:
        cleaned([{"role": ROLES[each], "content": ""} for each in order])
    assert caught.value.drop == ("wrong_role_order", detail)


def test_keys_that_parquet_fills_in_are_left_out():
    filled = {"a": None, "b": [{"c": None, "d": 0}, None, ""], "e": {"f": None}}
    assert without_nulls(filled) == {"b": [{"d": 0}, None, ""], "e": {}}


def test_strings_finds_every_one():
    assert sorted(strings([{"a": ["b", 1, {"c": None}]}, "d"])) == ["a", "b", "c", "d"]
    with pytest.raises(Unusable):
        parsed("{", "bad_tools")
