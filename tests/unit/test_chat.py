"""Rows to sequences: what is trained, what is dropped, and that no row is neither."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_chats
import small_encoders
from nemoflow.chat import special_tokens
from nemoflow.chat_template import Template
from nemoflow.errors import UserError
from nemoflow.messages import Drop, cleaned
from nemoflow.reasoning import BUDGET, CUT, LOW, OFF, Modes, parts
from nemoflow.vocabulary import Folder
from small_chats import CHATML, NEMOTRON, REASONING, Chats, assistant, stretches, system, tool, user

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
        rendered = known[template].one({"messages": messages} | row)
        if isinstance(rendered, Drop):
            return rendered.reason
        return [stretches(folder, sequence) for sequence in rendered]

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
    (found,) = ours.one({"data": {"turns": turns, "functions": [TOOL]}, "tools": 3})
    (same,) = small_chats.renderer(folder, NEMOTRON).one({"messages": turns, "tools": [TOOL]})
    assert found.ids.tolist() == same.ids.tolist()
    assert ours.one({"messages": turns}).reason == "missing_messages"


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({"used_in": ["v3"], "meta": {"score": 5}}, None),
        ({"used_in": ["v2"], "meta": {"score": 5}}, "used_in"),
        ({"used_in": ["v3"], "meta": {"score": 4}}, "filter:meta.score"),
        ({}, "used_in"),
    ],
)
def test_rows_that_are_not_asked_for(folder, row, kept):
    told = {"used_in": "v3", "filters": {"meta.score": {"min": 5}}}
    rendered = small_chats.renderer(folder, CHATML, **told).one(
        {"messages": [user("a"), assistant("b")]} | row
    )
    assert (rendered.reason if isinstance(rendered, Drop) else None) == kept


def rendered(folder, rows, template=NEMOTRON, **settings):
    lines = [(number, json.dumps(row).encode()) for number, row in enumerate(rows)]
    return small_chats.renderer(folder, template, **settings).render("a", lines)


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


REASONED = {"messages": [user("a"), assistant("b", "one two three"), user("c"), assistant("d")]}


def test_rows_that_reason_are_rendered_in_their_mode(folder):
    """Those that do not are left as they are; what was done is noted."""
    told = {"off": 0.2, "low_effort": 0.2, "budget": {"share": 0.2, "tokens": [1, 2]}}
    plain = {"messages": [user("a"), assistant("b")]}
    made = rendered(folder, [REASONED, plain] * 100, CHATML, reasoning=told)
    modes = Modes(REASONING | told).of("a", np.arange(200))
    expected = {n: mode.name for n, mode in enumerate(modes) if mode.name and n % 2 == 0}
    assert {n: noted[0] for n, noted in made.noted.items()} == expected
    assert {*expected.values()} == {OFF, LOW, BUDGET}
    for noted in made.noted.values():
        assert noted[1:] == ([CUT] if noted[0] == BUDGET else [])


def test_off_is_as_if_nobody_had_reasoned(folder):
    made = rendered(folder, [REASONED], reasoning={"off": 1.0})
    plain = [user("a"), assistant("b"), user("c"), assistant("d")]
    same = rendered(folder, [{"messages": plain}])
    assert [s.ids.tolist() for s in made.kept[0]] == [s.ids.tolist() for s in same.kept[0]]
    assert made.noted == {0: [OFF]} and same.noted == {}


def test_low_effort_is_told_to_the_template(folder):
    made = rendered(folder, [REASONED], reasoning={"low_effort": 1.0})
    first, second = (stretches(folder, sequence) for sequence in made.kept[0])
    assert "a\n\n{reasoning effort: low}<|im_end|>" in first[0][0]
    assert first[1] == ("one two three\n</think>\nb<|im_end|>\n", 1)
    assert (
        "a<|im_end|>" in second[0][0] and "c\n\n{reasoning effort: low}<|im_end|>" in second[0][0]
    )


THOUGHTS = {
    "words": "the quick fox, 東京 👍🏽 हिन्दी\n" * 9,
    "faces": "👍🏽" * 40,
    "letter": "a" * 99,
}


@pytest.mark.parametrize("thought", THOUGHTS)
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 7, 16])
def test_a_budget_cuts_reasoning_to_its_tokens_and_nothing_else(folder, thought, budget):
    thought = THOUGHTS[thought]
    turns = [user("a"), assistant("b " * 40, thought), tool("c " * 40), assistant("d", "short")]
    told = {"share": 1.0, "tokens": [budget, budget]}
    made = rendered(folder, [{"messages": turns}], reasoning={"budget": told})
    assert made.noted == {0: [BUDGET, CUT]}
    (sequence,) = [stretches(folder, sequence) for sequence in made.kept[0]]
    *cut, rest = sequence[1][0].split("\n</think>\n")
    cut = "".join(cut)
    assert rest == "b " * 40 + "<|im_end|>\n"
    assert thought.startswith(cut)
    encode = folder.huggingface.encode
    assert budget - 8 <= len(encode(cut, add_special_tokens=False)) <= budget
    assert f"a\n\nThinking budget: {budget} tokens.<|im_end|>" in sequence[0][0]
    (whole,) = rendered(folder, [{"messages": turns}]).kept[0]
    whole = stretches(folder, whole)
    assert sequence[2][0] == whole[2][0]
    assert whole[1][0] == f"{thought}\n</think>\n{rest}"


def test_a_budget_that_is_enough_is_told_and_cuts_nothing(folder):
    told = {"share": 1.0, "tokens": [500, 500]}
    made = rendered(folder, [REASONED], reasoning={"budget": told})
    assert made.noted == {0: [BUDGET]}
    text = "".join(text for text, _ in stretches(folder, made.kept[0][0]))
    bare = "".join(text for text, _ in stretches(folder, rendered(folder, [REASONED]).kept[0][0]))
    assert text.replace("\n\nThinking budget: 500 tokens.", "") == bare != text


def test_a_sequence_that_trains_nothing_is_none(folder):
    """And a row with no other is dropped; the very first token is predicted from nothing."""
    empty = "{% for m in messages %}{{ m.role }}{% generation %}{% endgeneration %}{% endfor %}"
    assert rendered(folder, [REASONED], empty).dropped[0].reason == "no_trained_tokens"
    first = "{% generation %}a{% endgeneration %}{% for m in messages %}b{% endfor %}"
    plain = {"messages": [user("a"), assistant("b")]}
    assert rendered(folder, [plain], first).dropped[0].reason == "no_trained_tokens"


def test_tokens_that_templates_know_by_name(folder, tmp_path):
    assert special_tokens(folder) == {"bos_token": "<s>", "eos_token": "</s>"}
    names = {"bos_token": {"content": "<s>"}, "pad_token": None, "add_bos_token": True}
    other = Folder(small_encoders.byte_level(tmp_path, **names))
    assert special_tokens(other) == {"bos_token": "<s>", "eos_token": "</s>"}


def test_other_kinds_of_tokenizer_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"need a tokenizer\.json, not small\.tiktoken"):
        small_chats.renderer(Folder(small_encoders.tiktoken(tmp_path)), CHATML)


# What a text must not hold: rows with it are dropped, and counted.
HELD = ("<|im_", "<tool_call>", "<s>", "</s>", "<unk>")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: not any(token in text for token in HELD)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), texts, st.none() | texts), max_size=8))
def test_every_answer_is_trained_once_whatever_is_said(folder, spans, told):
    turns = [assistant(text, why) if answers else user(text) for answers, text, why in told]
    made = spans(turns)
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not answers:
        assert made == ("no_assistant" if turns else "empty_messages")
        return
    trained = [text for sequence in made for text, mask in sequence if mask]
    assert trained == ["".join(written(turn)) for turn in answers]


def written(turn):
    """What an assistant's turn trains, its calls aside."""
    thought = turn["reasoning_content"] or ""
    thought = f"{thought}\n</think>\n" if thought.strip() else ""
    return f"{thought}{turn['content'] or ''}", "<|im_end|>\n"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_every_row_is_kept_or_dropped_for_one_reason(folder, seed):
    """40 conversations at a time, a third of them spoiled.

    Of the others, over the sequences of a row, each answer and its terminator is trained once, and
    nothing else; the stretches of a sequence are together what the template writes.
    """
    chats = Chats(seed)
    rows, reasons = zip(*(chats.maybe_spoiled(0.3) for _ in range(40)), strict=True)
    made = rendered(folder, rows)
    assert {n: drop.reason for n, drop in made.dropped.items()} == {
        number: reason for number, reason in enumerate(reasons) if reason
    }
    assert sorted([*made.kept, *made.dropped]) == list(range(40))
    template = Template(NEMOTRON)
    for number, sequences in made.kept.items():
        turns = cleaned(rows[number]["messages"])
        told = [stretches(folder, sequence) for sequence in sequences]
        trained = [text for sequence in told for text, mask in sequence if mask]
        answers = [turn for turn in turns if turn["role"] == "assistant"]
        for text, turn in zip(trained, answers, strict=True):
            beginning, end = written({"reasoning_content": None, **turn})
            assert text.startswith(beginning) and text.endswith(end)
            assert text.count("<|im_end|>") == 1
            assert text.count("<tool_call>") == len(turn.get("tool_calls", ()))
            assert "tool_calls" in turn or text == beginning + end
        tools = rows[number].get("tools")
        tools = json.loads(tools) if isinstance(tools, str) else tools
        for part, sequence in zip(parts(turns, False), told, strict=True):
            plain = template.text(turns[: part.end], {"tools": tools, **part.arguments})
            assert "".join(text for text, _ in sequence) == plain
