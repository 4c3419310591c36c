"""What the first rows tell before anything is written."""

import json

import pytest

import small_encoders
from nemoflow import encoding, first_rows
from nemoflow.errors import UserError
from nemoflow.vocabulary import Folder
from small_chats import CHATML, NEMOTRON, SETTINGS, assistant, tool, unmarked, user

SILENT = "{% for m in messages %}{{ m.content }}{% endfor %}{% generation %}{% endgeneration %}"
UNENDED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% generation %}"
    "{{ m.content if m.role == 'assistant' }}{% endgeneration %}<|im_end|>\n{% endfor %}"
)
CHAT = {"messages": [user("1+1?"), assistant("2", "one and one")]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(small_encoders.chat(tmp_path_factory.mktemp("chat")))


@pytest.fixture
def checked(folder, capsys):
    """(the encoder of the renderer, what was said) of some rows."""

    def run(rows, template=NEMOTRON, folder=folder, **settings):
        lines = [(number, json.dumps(row).encode()) for number, row in enumerate(rows)]
        told = SETTINGS | {"template": template} | settings
        renderer = first_rows.renderer(folder, told, "a.jsonl", lines)
        return renderer.encoder, capsys.readouterr().err

    return run


@pytest.mark.parametrize("template", [NEMOTRON, unmarked(NEMOTRON)])
def test_one_conversation_is_shown_with_what_is_trained(checked, template):
    encoder, said = checked([{"messages": []}, CHAT], template)
    assert encoder.name.startswith("gigatoken ")
    assert said == (
        "a.jsonl: the first conversation; what is trained is in ⟦brackets⟧\n"
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n⟦one and one\n</think>\n2<|im_end|>\n⟧\n"
    )


def test_every_sequence_is_shown_and_long_ones_are_cut(checked):
    turns = [*CHAT["messages"], user("x " * 3000), assistant("done", "hm")]
    _, said = checked([{"messages": turns}])
    assert "⟦one and one" in said and " …\n" in said and len(said) < 3000


def test_a_terminator_that_is_not_trained_is_warned_of(checked):
    _, said = checked([CHAT], UNENDED)
    assert "⟦2⟧<|im_end|>" in said
    assert "warning: no control token is trained" in said and "does not stop" in said
    assert "warning" not in checked([CHAT], CHATML)[1]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (SILENT, r"no_trained_tokens\. Nothing was written"),
        ("{{ messages[0].nothing.more }}", "template_error: .*nothing"),
        ("{{ messages | length }}{{ messages[-1].content }}", "template_not_incremental: "),
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 3, 99])
def test_a_template_that_fails_for_every_row_is_refused(checked, template, why, rows):
    count = min(rows, first_rows.MOST_ROWS)
    with pytest.raises(UserError, match=rf"template: {count} of the first {count} rows .*: {why}"):
        checked([CHAT] * rows, template)


def test_other_faults_are_no_fault_of_the_template(checked):
    """They are counted when all rows are read; nor does one row condemn a template."""
    _, said = checked([{"messages": []}] * 9)
    assert said == ""
    checked([CHAT] * 9, used_in="v3")
    odd = {"messages": [user("a"), assistant("", tool_calls=[{"name": "f"}]), tool("b")]}
    refuses = "{% if messages[-1].role == 'tool' %}{{ raise_exception('x') }}{% endif %}" + CHATML
    assert "the first conversation" in checked([odd] * 9 + [CHAT], refuses)[1]
    checked([odd, odd, {"messages": []}], refuses)
    with pytest.raises(UserError, match="template: 3 of the first 4 rows .* template_error: x"):
        checked([odd, odd, odd, {"messages": []}], refuses)


def test_only_the_beginning_is_looked_at():
    rows = [(number, b"x" * 100) for number in range(200)]
    assert len(first_rows.first(rows)) == first_rows.MOST_ROWS
    assert len(first_rows.first([(0, b"x" * first_rows.MOST_BYTES)] * 3)) == 1
    assert len(first_rows.first([(0, {"a": 1})] * 3)) == 3


def test_gigatoken_must_encode_the_rows_as_the_library_does(checked, tmp_path, monkeypatch):
    other = Folder(
        small_encoders.byte_level(tmp_path, lambda told: told.update(normalizer={"type": "NFC"}))
    )
    encoder, said = checked([CHAT], CHATML, other)
    assert encoder.name.startswith("tokenizers ")
    assert said.endswith("a.jsonl: not with gigatoken: it has a normalizer\n")
    monkeypatch.setattr(first_rows, "agree", lambda *given: False)
    encoder, said = checked([CHAT])
    assert encoder.name.startswith("tokenizers ")
    assert said.endswith("a.jsonl: not with gigatoken: it encodes a text otherwise\n")


def test_what_gigatoken_refuses_is_told(checked, monkeypatch):
    def refuse(*_):
        raise ValueError("no such split\nat all")

    monkeypatch.setattr(encoding, "Gigatoken", refuse)
    assert checked([CHAT])[1].endswith("a.jsonl: not with gigatoken: no such split\n")
