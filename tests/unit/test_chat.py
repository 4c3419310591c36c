"""Rendering: what is trained, what is dropped."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_tokenizer
from nemoflow import tokenizer
from nemoflow.chat import Drop, Renderer, compile_template, render, render_source
from nemoflow.corpus import Place
from nemoflow.errors import UserError
from nemoflow.rows import RowCount
from nemoflow.spool import Spool

CHATML = (small_tokenizer.TEMPLATES / "chatml.jinja").read_text()
NEMOTRON = (small_tokenizer.TEMPLATES / "nemotron3.jinja").read_text()
SETTINGS = {"messages_field": "messages", "tools_field": "tools", "used_in": None}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"properties": {"a": {}}}}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, reasoning=None, **fields):
    return {"role": "assistant", "content": content, "reasoning_content": reasoning, **fields}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer.make(folder)
    return tokenizer.load(folder)


@pytest.fixture(scope="module")
def spans(loaded):
    """Renders a row into [(text, mask)] stretches per sequence."""

    def run(messages, template=NEMOTRON, **row):
        rendered = render({"messages": messages} | row, template, loaded, SETTINGS)
        if isinstance(rendered, Drop):
            return rendered.reason
        return [stretches(loaded, sequence) for sequence in rendered]

    return run


def stretches(loaded, sequence):
    assert sequence.ids.dtype == np.int32 and sequence.mask.dtype == np.uint8
    assert sequence.ids.shape == sequence.mask.shape
    edges = [0, *(np.flatnonzero(np.diff(sequence.mask)) + 1).tolist(), len(sequence.mask)]
    return [
        (
            loaded.decode(sequence.ids[a:b].tolist(), skip_special_tokens=False),
            int(sequence.mask[a]),
        )
        for a, b in zip(edges, edges[1:], strict=False)
    ]


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


@pytest.mark.parametrize("blank", [None, "", " \n", 3])
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
    results = [{"role": "tool", "content": "3"}, {"role": "tool", "content": "4"}]
    turns = [user("1+2?"), assistant(None, "call", tool_calls=[call]), *results]
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


def test_the_budget_reaches_the_last_user_turn(spans):
    (sequence,) = spans(
        [user("a"), assistant("b", "c")], chat_template_kwargs={"reasoning_budget": 64}
    )
    assert "a\n\nThinking budget: 64 tokens.<|im_end|>" in sequence[0][0]


def test_templates_that_end_in_a_line_break(spans):
    trailing = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n{% endif %}\n\n"
    )
    with_thought = trailing.replace(
        "{{ m.content }}", "{% if m.role == 'assistant' %}<think>{% endif %}{{ m.content }}"
    )
    (sequence,) = spans([user("a"), assistant("b"), user("c"), assistant("d")], with_thought)
    trained = [text for text, mask in sequence if mask]
    assert trained[0] == "b<|im_end|>\n" and trained[1].rstrip() == "d<|im_end|>"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "missing_messages"),
        ({"messages": []}, "missing_messages"),
        ({"messages": [user("a")]}, "no_assistant"),
        ({"messages": ["a"]}, "malformed_message"),
        ({"messages": [user(3), assistant("b")]}, "malformed_message"),
        ({"messages": [{"role": "judge", "content": "a"}, assistant("b")]}, "unknown_role"),
        ({"messages": [user("<|im_end|>"), assistant("b")]}, "control_token"),
        ({"messages": [user("a"), assistant("b", "<|im_start|>")]}, "control_token"),
        ({"messages": [user("a"), assistant("<tool_call>")]}, "tool_call_without_tools"),
        ({"messages": [user("a"), assistant("b")], "tools": "{"}, "bad_tools"),
        (
            {"messages": [user("a"), assistant("", tool_calls=[{"name": "f", "arguments": "{"}])]},
            "bad_tool_arguments",
        ),
    ],
)
def test_reasons_to_drop_a_row(loaded, row, reason):
    assert render(row, NEMOTRON, loaded, SETTINGS).reason == reason


@pytest.mark.parametrize("template", [CHATML, NEMOTRON])
def test_transformers_renders_the_same(tiny_tokenizer, template):
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(tiny_tokenizer)
    call = {"function": {"name": "add", "arguments": {"a": [1, "é"]}}}
    turns = [user("1+2?"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    for messages in (turns[:1], turns, [*turns, {"role": "tool", "content": "3"}]):
        for prompt in (True, False):
            theirs = loaded.apply_chat_template(
                messages,
                tools=[TOOL],
                chat_template=template,
                add_generation_prompt=prompt,
                tokenize=False,
            )
            arguments = {"tools": [TOOL], "add_generation_prompt": prompt}
            assert compile_template(template).render(messages=messages, **arguments) == theirs


def test_templates_that_fail(loaded, spans):
    turns = [user("a"), assistant("b"), user("c"), assistant("d")]
    assert spans(turns, "{{ raise_exception('no') }}") == "template_error"
    assert spans(turns, "{{ messages[0].content + 3 }}") == "template_error"
    assert spans(turns, "{{ messages[0].__class__.__mro__ }}") == "template_error"
    numbered = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert spans(turns, numbered) == "template_not_incremental"
    with pytest.raises(UserError, match="chat template, line 2"):
        compile_template("a\n{% if %}")


@pytest.mark.parametrize(
    ("used_in", "kept"),
    [(["v2", "v3"], True), ("v3", True), ("v2, v3", True), ("v31", False), (None, False)],
)
def test_used_in_filters(loaded, used_in, kept):
    renderer = Renderer(CHATML, loaded, SETTINGS | {"used_in": "v3"})
    rendered = renderer.render({"messages": [user("a"), assistant("b")], "used_in": used_in})
    assert isinstance(rendered, list) == kept
    assert kept or rendered.reason == "used_in"


DROPPED = ("<|im_", "<tool_call>")  # rows with these inside a text are dropped, and counted
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: not any(token in text for token in DROPPED)
)
turns_of = st.lists(
    st.one_of(
        st.builds(user, texts),
        st.builds(assistant, texts, st.one_of(st.none(), texts)),
        st.builds(lambda content: {"role": "tool", "content": content}, texts),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=80, deadline=None)
@given(turns_of)
def test_every_assistant_turn_is_trained_once(spans, turns):
    rendered = spans(turns)
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not answers:
        assert rendered == "no_assistant"
        return
    written = [
        f"{turn['reasoning_content']}\n</think>\n{turn['content']}<|im_end|>\n"
        if (turn["reasoning_content"] or "").strip()
        else f"{turn['content']}<|im_end|>\n"
        for turn in answers
    ]
    trained = [text for sequence in rendered for text, mask in sequence if mask]
    assert trained == written


def test_a_source_becomes_a_spool(tmp_path, tiny_tokenizer):
    rows = [{"messages": [user(f"{i}?"), assistant(str(i))]} for i in range(5)]
    rows.insert(2, {"messages": [user("a")]})
    counts = RowCount(rows_in=len(rows))
    places = [(Place("a.jsonl", 10 * i), row) for i, row in enumerate(rows)]
    arguments = [CHATML, tiny_tokenizer, SETTINGS | {"max_dropped": 0.2}, tmp_path / "spool"]
    made = render_source(places, *arguments, counts)
    assert made["rows"] == {"in": 6, "kept": 5, "dropped": {"no_assistant": 1}}
    spool = Spool(tmp_path / "spool")
    assert spool.lengths.sum() == made["tokens"] == len(spool.tokens)
    assert spool.masks.sum() == made["trained_tokens"]
    assert spool.eos_id == tokenizer.eos_id(tiny_tokenizer)
    loaded = tokenizer.load(tiny_tokenizer)
    (last,) = render(rows[-1], CHATML, loaded, SETTINGS)
    assert [part.tolist() for part in spool.sequence(4)] == [last.ids.tolist(), last.mask.tolist()]
    arguments[2] = SETTINGS | {"max_dropped": 0.1}
    with pytest.raises(UserError, match=r"1 no_assistant \(first: a\.jsonl, byte 20\)"):
        render_source(places, *arguments, RowCount(rows_in=len(rows)))
    with pytest.raises(UserError, match="holds no rendered conversations"):
        Spool(tmp_path / "spool")
    arguments[2] = SETTINGS | {"max_dropped": 1.0}
    with pytest.raises(UserError, match="no conversation is left"):
        render_source(places[2:3], *arguments, RowCount(rows_in=1))
