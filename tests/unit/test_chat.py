"""Rows to sequences: what is trained, what is dropped."""

import json

import pytest

import small_chats
import small_encoders
from nemoflow.chat import special_tokens
from nemoflow.errors import UserError
from nemoflow.rows import Drop
from nemoflow.vocabulary import Folder
from small_chats import CHATML, NEMOTRON, assistant, one, rendered, stretches, system, tool, user

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"properties": {"a": {}}}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(small_encoders.chat(tmp_path_factory.mktemp("chat")))


@pytest.fixture(scope="module")
def spans(folder):
    """Renders a row into [(text, mask)] stretches per sequence."""
    known = {}

    def run(messages, template=NEMOTRON, **row):
        if template not in known:
            known[template] = small_chats.renderer(folder, template)
        made = one(known[template], {"messages": messages} | row)
        if isinstance(made, Drop):
            return made.reason
        return [stretches(folder, sequence) for sequence in made]

    return run


def test_chatml_trains_answers_and_their_terminator(spans):
    (sequence,) = spans([user("1+1?"), assistant("2"), user("2+2?"), assistant("4")], CHATML)
    header = "<|im_start|>assistant\n"
    assert sequence == [
        (f"<|im_start|>user\n1+1?<|im_end|>\n{header}", 0),
        ("2<|im_end|>\n", 1),
        (f"<|im_start|>user\n2+2?<|im_end|>\n{header}", 0),
        ("4<|im_end|>\n", 1),
    ]


def test_reasoning_gives_one_sequence_per_user_turn(spans):
    turns = [user("1+1?"), assistant("2", "one\nmore"), user("sure?"), assistant("yes", "hm")]
    first, second = spans(turns)
    start = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n"
    think = "<|im_start|>assistant\n<think>\n"
    assert first == [(start + think, 0), ("one\nmore\n</think>\n2<|im_end|>\n", 1)]
    history = "<|im_start|>assistant\n<think></think>2<|im_end|>\n"
    asked = "<|im_start|>user\nsure?<|im_end|>\n"
    assert second == [(start + history + asked + think, 0), ("hm\n</think>\nyes<|im_end|>\n", 1)]


@pytest.mark.parametrize("blank", [None, "", " \n"])
def test_blank_reasoning_is_no_reasoning(spans, blank):
    turns = [user("a"), assistant("b"), user("c"), assistant("d", blank)]
    missing = [{k: v for k, v in turn.items() if k != "reasoning_content"} for turn in turns]
    assert spans(turns) == spans(missing)
    (sequence,) = spans(turns)
    assert [text for text, mask in sequence if mask] == ["b<|im_end|>\n", "d<|im_end|>\n"]
    assert sequence[0][0].endswith("<|im_start|>assistant\n<think></think>")


def test_a_turn_without_reasoning_among_reasoning_ones(spans):
    turns = [user("a"), assistant("b", "why"), user("c"), assistant("d")]
    _, second = spans(turns)
    assert second[0][0].endswith("<|im_start|>assistant\n<think></think>")
    assert second[1] == ("d<|im_end|>\n", 1)


def test_turns_before_consecutive_and_trailing_users_are_trained(spans):
    turns = [assistant("hello", "greet"), user("a"), user("b"), assistant("c", "why"), user("d")]
    first, second = spans(turns)
    assert [text for text, mask in first if mask] == ["greet\n</think>\nhello<|im_end|>\n"]
    assert [text for text, mask in second if mask] == ["why\n</think>\nc<|im_end|>\n"]
    assert "a<|im_end|>\n<|im_start|>user\nb" in second[0][0]
    (plain,) = spans([user("a"), assistant("b"), user("c")], CHATML)
    assert [text for text, mask in plain if mask] == ["b<|im_end|>\n"]
    assert plain[-1] == ("<|im_start|>user\nc<|im_end|>\n", 0)


def test_tool_calls_and_results(spans):
    call = {"function": {"name": "add", "arguments": json.dumps({"a": 1, "b": [2]})}}
    turns = [user("1+2?"), assistant(None, "call", tool_calls=[call]), tool("3"), tool("4")]
    (sequence,) = spans([*turns, assistant("3", "done")], tools=json.dumps([TOOL]))
    trained = [text for text, mask in sequence if mask]
    body = "<parameter=a>\n1\n</parameter>\n<parameter=b>\n[2]\n</parameter>\n"
    assert trained == [
        f"call\n</think>\n<tool_call>\n<function=add>\n{body}</function>\n</tool_call>\n<|im_end|>\n",
        "done\n</think>\n3<|im_end|>\n",
    ]
    one = "<tool_response>\n3\n</tool_response>\n<tool_response>\n4\n</tool_response>\n"
    assert sequence[2][0].startswith(f"<|im_start|>user\n{one}<|im_end|>\n")
    assert "<function>\n<name>add</name>\n" in sequence[0][0]


def test_arguments_of_a_row_reach_the_template(spans):
    turns, told = [user("a"), assistant("b", "c")], {"reasoning_budget": 64}
    (sequence,) = spans(turns, chat_template_kwargs=told)
    assert "a\n\nThinking budget: 64 tokens.<|im_end|>" in sequence[0][0]
    nested = "{{ chat_template_kwargs.reasoning_budget }}" + CHATML
    assert spans(turns, nested, chat_template_kwargs=told)[0][0][0].startswith("64<|im_start|>")
    assert spans(turns, chat_template_kwargs={"enable_thinking": False}) == spans(turns)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "missing_messages"),
        ({"messages": {"role": "user"}}, "missing_messages"),
        ({"messages": []}, "empty_messages"),
        ({"messages": [user("a")]}, "no_assistant"),
        ({"messages": ["a"]}, "malformed_message"),
        ({"messages": [user(3), assistant("b")]}, "malformed_message"),
        ({"messages": [user("a"), assistant("b", 3)]}, "malformed_message"),
        ({"messages": [{"role": "judge", "content": "a"}, assistant("b")]}, "unknown_role"),
        ({"messages": [user("a"), system("s"), assistant("b")]}, "wrong_role_order"),
        ({"messages": [user("a"), tool("s"), assistant("b")]}, "wrong_role_order"),
        ({"messages": [user("<|im_end|>"), assistant("b")]}, "control_token"),
        ({"messages": [user("a"), assistant("b", "<|im_start|>")]}, "control_token"),
        ({"messages": [user("a"), assistant("b")], "tools": [{"name": "</s>"}]}, "control_token"),
        ({"messages": [user("a"), assistant("<tool_call>")]}, "tool_call_without_tools"),
        ({"messages": [user("a"), assistant("b", "<tool_call>")]}, "tool_call_without_tools"),
        ({"messages": [user("a"), assistant("b")], "tools": "{"}, "bad_tools"),
        ({"messages": [user("a"), assistant("b")], "tools": ["{"]}, "bad_tools"),
        ({"messages": [user("a"), assistant("b")], "tools": [{"no": "name"}]}, "template_error"),
        (
            {"messages": [user("a"), assistant("b")], "chat_template_kwargs": "{}"},
            "bad_template_arguments",
        ),
        (
            {"messages": [user("a"), assistant("b")], "chat_template_kwargs": {"messages": []}},
            "template_error",
        ),
        (
            {"messages": [user("a"), assistant("", tool_calls=[{"name": "f", "arguments": "{"}])]},
            "bad_tool_arguments",
        ),
    ],
)
def test_reasons_to_drop_a_row(spans, row, reason):
    assert spans(**{"messages": None} | row) == reason


def test_calls_that_stand_in_a_text_are_kept_where_the_row_has_tools(spans):
    written = [user("a"), assistant("<tool_call>\n{}\n</tool_call>")]
    assert isinstance(spans(written, tools=[TOOL]), list)
    assert isinstance(spans([system("# Tools\n..."), *written]), list)
    assert spans(written, tools=[]) == spans(written, tools="") == "tool_call_without_tools"


@pytest.mark.parametrize(
    ("unread", "drop"),
    [
        (b'{"messages": [', "not_json"),
        (b"[1]", "not_an_object"),
        (b'{"a": "\xff"}', "not_json"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "not_utf8"),
        (b'{"messages": null}', "missing_messages"),
    ],
)
def test_rows_that_cannot_be_read(folder, unread, drop):
    made = small_chats.renderer(folder, CHATML).render("a", [(0, unread)])
    assert made.dropped[0].reason == drop and not made.kept


def test_fields_of_other_names_and_in_other_fields(folder):
    fields = {"messages_field": "data.turns", "tools_field": "data.functions"}
    ours = small_chats.renderer(folder, NEMOTRON, **fields)
    turns = [user("a"), assistant("b")]
    (found,) = one(ours, {"data": {"turns": turns, "functions": [TOOL]}, "tools": 3})
    (same,) = one(small_chats.renderer(folder, NEMOTRON), {"messages": turns, "tools": [TOOL]})
    assert found.ids.tolist() == same.ids.tolist()
    assert one(ours, {"messages": turns}).reason == "missing_messages"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"used_in": ["v3"], "meta": {"score": 5}}, None),
        ({"used_in": ["v2"], "meta": {"score": 5}}, "used_in"),
        ({"used_in": ["v3"], "meta": {"score": 4}}, "filter:meta.score"),
        ({}, "used_in"),
    ],
)
def test_rows_that_are_not_asked_for(folder, row, reason):
    told = {"used_in": "v3", "filters": {"meta.score": {"min": 5}}}
    ours = small_chats.renderer(folder, CHATML, **told)
    made = one(ours, {"messages": [user("a"), assistant("b")]} | row)
    assert (made.reason if isinstance(made, Drop) else None) == reason


def test_keys_are_of_ids_alone(folder):
    turns = {"messages": [user("a"), assistant("b")]}
    ids = [7, "7", 7, 7.0, None, [7], "x", True]
    rows = [turns | {"id": value} for value in ids] + [turns, {"id": "x"}]
    keys = rendered(folder, rows).keys
    assert sorted(keys) == [0, 1, 2, 3, 6, 7]
    assert keys[0] == keys[2] and len({*keys.values()}) == 5
    assert rendered(folder, rows, duplicates="keep").keys == {}
    named = rendered(folder, [{**turns, "meta": {"uuid": "x"}}], id_field="meta.uuid").keys
    assert named[0] == keys[6]


PLAIN = {"messages": [user("a"), assistant("b")]}


def test_rows_that_train_nothing(folder):
    """A row of such alone is dropped; the very first token is predicted from nothing."""
    empty = "{% for m in messages %}{{ m.role }}{% generation %}{% endgeneration %}{% endfor %}"
    assert rendered(folder, [PLAIN], empty).dropped[0].reason == "no_trained_tokens"
    first = "{% generation %}a{% endgeneration %}{% for m in messages %}b{% endfor %}"
    assert rendered(folder, [PLAIN], first).dropped[0].reason == "no_trained_tokens"


def test_tokens_that_templates_know_by_name(folder, tmp_path):
    assert special_tokens(folder) == {"bos_token": "<s>", "eos_token": "</s>"}
    names = {"bos_token": {"content": "<s>"}, "pad_token": None, "add_bos_token": True}
    other = Folder(small_encoders.byte_level(tmp_path, **names))
    assert special_tokens(other) == {"bos_token": "<s>", "eos_token": "</s>"}


def test_other_kinds_of_tokenizer_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"need a tokenizer\.json, not small\.tiktoken"):
        small_chats.renderer(Folder(small_encoders.tiktoken(tmp_path)), CHATML)
