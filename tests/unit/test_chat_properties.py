"""Whatever a conversation is: kept or dropped for one reason, each answer trained once."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_encoders
from nemoflow.chat_template import Template
from nemoflow.messages import cleaned
from nemoflow.reasoning import parts
from nemoflow.vocabulary import Folder
from small_chats import NEMOTRON, Chats, assistant, rendered, renderer, stretches, user


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(small_encoders.chat(tmp_path_factory.mktemp("chat")))


# What a text must not hold: rows with it are dropped, and counted.
HELD = ("<|im_", "<tool_call>", "<s>", "</s>", "<unk>")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: not any(token in text for token in HELD)
)


@pytest.fixture(scope="module")
def ours(folder):
    return renderer(folder, NEMOTRON)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), texts, st.none() | texts), max_size=8))
def test_every_answer_is_trained_once_whatever_is_said(folder, ours, told):
    turns = [assistant(text, why) if answers else user(text) for answers, text, why in told]
    made = ours.one({"messages": turns})
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not answers:
        assert made.reason == ("no_assistant" if turns else "empty_messages")
        return
    told = [stretches(folder, sequence) for sequence in made]
    trained = [text for sequence in told for text, mask in sequence if mask]
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
