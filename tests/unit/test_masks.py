"""What is trained: as transformers has it, with markers and without, and of others' templates."""

import json

import msgspec
import pytest

import small_encoders
from nemoflow import encoding, messages, reasoning
from nemoflow.vocabulary import Folder
from small_chats import (
    CHATML,
    NEMOTRON,
    TOOLS,
    Chats,
    assistant,
    one,
    renderer,
    stretches,
    system,
    tool,
    unmarked,
    user,
)

LLAMA = (
    "{{- bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role"
    " + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
QWEN = """
{%- set place = namespace(last=0) %}
{%- for m in messages if m.role == 'user' %}{% set place.last = m.number %}{% endfor %}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\n' }}
    {%- if m.role == 'assistant' %}
        {%- generation %}
        {%- if m.reasoning_content and loop.index0 > place.last %}
            {{- '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}
        {%- elif loop.last and enable_thinking == false %}
            {{- '<think>\n\n</think>\n\n' }}
        {%- endif %}
        {{- m.content + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- m.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking == false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}
"""
BLANK_LINES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n\n{% endif %}\n\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(small_encoders.chat(tmp_path_factory.mktemp("chat")))


@pytest.fixture(scope="module")
def theirs(folder):
    """Transformers' ids and mask of messages."""
    transformers = pytest.importorskip("transformers")
    loaded = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder.file))
    wanted = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}

    def run(given, template, **arguments):
        told = loaded.apply_chat_template(given, chat_template=template, **wanted, **arguments)
        return told["input_ids"], told["assistant_masks"]

    return run


def merges(text):
    """Whether a newline before a text and the beginning of it are one token."""
    return "\n" in text[: len(text) - len(text.lstrip())].replace("\r", "\n")


@pytest.mark.parametrize(
    ("template", "history", "begins", "rows", "most"),
    [
        (NEMOTRON, "drop", "reasoning_content", 5000, 100),
        (NEMOTRON, "keep", "reasoning_content", 300, 9),
        (CHATML, "keep", "content", 500, 100),
    ],
)
def test_ids_and_masks_are_those_of_transformers(
    folder, theirs, template, history, begins, rows, most
):
    """Save where what is written begins with a newline, which inference makes a token of its own.

    By gigatoken with the template's markers, by the tokenizer's own library without them.
    """
    chats = Chats(rows)
    given = [chats.row() for _ in range(rows)]
    lines = [(number, json.dumps(row).encode()) for number, row in enumerate(given)]
    settings = {"reasoning": {"history": history}}
    fast, exact = encoding.Gigatoken(folder, 1 << 30), encoding.exact(folder)
    marked = renderer(folder, template, fast, **settings).render("a", lines).kept
    found = renderer(folder, unmarked(template), exact, **settings).render("a", lines).kept
    assert len(marked) == len(found) == rows
    shapes, other = set(), 0
    for number, row in enumerate(given):
        turns, tools = messages.cleaned(row["messages"]), row.get("tools")
        tools = msgspec.json.decode(tools) if isinstance(tools, str) else tools
        parts = list(reasoning.parts(turns, history == "keep"))
        for part, ours, same in zip(parts, marked[number], found[number], strict=True):
            told = (ours.ids.tolist(), ours.mask.tolist())
            assert (same.ids.tolist(), same.mask.tolist()) == told
            ids, mask = theirs(turns[: part.end], template, tools=tools, **part.arguments)
            if any(merges(turn.get(begins, "")) for turn in turns[part.first : part.end]):
                other += 1
                decode = folder.huggingface.decode
                assert decode(ids, False) == decode(told[0], False)
            else:
                assert (ids, mask) == told
        shapes.add((bool(tools), len(parts), *(turn["role"][0] for turn in turns)))
    assert 0 < other < most and len(shapes) > rows / 20


@pytest.fixture(scope="module")
def trained(folder):
    """The trained texts of each sequence of some messages, or why there are none."""

    def run(given, template, **settings):
        made = one(renderer(folder, template, **settings), {"messages": given, "tools": TOOLS})
        if not isinstance(made, list):
            return made
        told = [stretches(folder, sequence) for sequence in made]
        return [[text for text, mask in each if mask] for each in told]

    return run


def numbered(*turns):
    return [{**turn, "number": number} for number, turn in enumerate(turns)]


REASONED = numbered(
    *(user("a"), assistant("b", "why b"), tool("c"), assistant("d", "why d")),
    *(user("e"), user("f"), assistant("g"), user("h"), assistant("i", "why i"), user("j")),
)


def test_headers_of_llama_and_a_token_that_begins_a_text(folder, trained):
    turns = [system(" s "), user("a"), assistant("\n b "), user("c"), assistant(""), user("d")]
    assert trained(turns, LLAMA) == [["b<|eot_id|>", "<|eot_id|>"]]
    (sequence,) = one(renderer(folder, LLAMA), {"messages": turns})
    ((head, _), *_, (tail, _)) = stretches(folder, sequence)
    assert head.startswith("<s><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|>")
    assert sequence.ids[0] == folder.bos
    assert tail == "<|start_header_id|>user<|end_header_id|>\n\nd<|eot_id|>"


@pytest.mark.parametrize("template", [QWEN, unmarked(QWEN)])
def test_earlier_turns_are_not_trained_again(trained, template):
    """Every turn of Qwen's is marked, those too that have lost their reasoning."""
    end = "" if template == QWEN else "\n"  # which the model's last token makes needless
    assert trained(REASONED, template) == [
        [
            f"<think>\nwhy b\n</think>\n\nb<|im_end|>{end}",
            f"<think>\nwhy d\n</think>\n\nd<|im_end|>{end}",
        ],
        [f"g<|im_end|>{end}"],
        [f"<think>\nwhy i\n</think>\n\ni<|im_end|>{end}"],
    ]
    begins = "<think>\n\n</think>\n\n" if template == QWEN else ""  # the prompt has it
    plain = numbered(user("a"), assistant("b"))
    assert trained(plain, template) == [[f"{begins}b<|im_end|>{end}"]]


def test_arguments_reach_templates_that_look_among_the_others(trained):
    """As NVIDIA's do, without markers: of the prompts with thinking on and off one is found."""
    nested = unmarked(NEMOTRON).replace("enable_thinking", "chat_template_kwargs.enable_thinking")
    assert trained(REASONED, nested) == trained(REASONED, NEMOTRON)


def test_line_breaks_at_the_end_of_a_prompt_and_of_a_text(trained):
    """The whole has none of them; such rows are lost elsewhere."""
    plain = [user("a"), assistant("b"), user("c"), user("d"), assistant("e\n"), user("f")]
    assert trained(plain, BLANK_LINES) == [["b<|im_end|>\n", "e\n<|im_end|>\n"]]
    (last,) = trained([user("a"), assistant("b")], BLANK_LINES)
    assert last[0].rstrip() == "b<|im_end|>"
    assert trained([assistant("a"), assistant("b")], BLANK_LINES)[0][0] == "a<|im_end|>\n"


def test_markers_inside_of_a_turn(trained):
    """One turn in two stretches, and one that is not marked at all."""
    split = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}[{{ m.content }}"
        "{% endgeneration %} said {% generation %}]{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    turns = [user("a"), assistant("b", "x"), user("c"), assistant("d", "y")]
    assert trained(turns, split) == [["[b", "]"], ["[d", "]"]]
    assert trained([*turns[:3], assistant("", "y")], split) == [["[b", "]"], ["[", "]"]]
    said = "{% generation %}{{ m.content }}{% endgeneration %}"
    for shape, marks, last, texts in (
        ("loop.last", said, "d", [["b"], ["d"]]),
        ("loop.last", f"{said}|{said}", "d", [["b", "b"], ["d", "d"]]),
        ("m.content", said, "", [["b"], []]),  # an empty turn is not marked
    ):
        turn = "{% if m.role == 'assistant' and " + shape + " %}" + marks
        template = "{% for m in messages %}" + turn + "{% else %}{{ m.content }}{% endif %}"
        given = [*turns[:3], assistant(last, "y")]
        assert trained(given, template + "{% endfor %}") == texts


def test_turns_that_are_written_otherwise_once_another_follows(trained):
    turns = [user("a"), assistant("b"), user("c"), assistant("d")]
    counted = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert trained(turns, counted).reason == "template_not_incremental"
    plain = numbered(*turns)  # of which the last one alone is told that it does not think
    assert trained(plain, unmarked(QWEN)) == ("template_not_incremental", "message 1")
    assert len(trained(plain, QWEN)[0]) == 2
    kept = {"reasoning": {"history": "keep"}}
    assert trained(REASONED, unmarked(QWEN), **kept).reason == "template_not_incremental"
    (all_of_them,) = trained(REASONED, unmarked(NEMOTRON), **kept)
    assert [text.partition("\n")[0] for text in all_of_them] == [
        *("why b", "why d", "g<|im_end|>", "why i")
    ]


def test_a_text_that_ends_within_the_prompt(trained):
    """A template without a generation prompt begins an answer where the messages before end."""
    bare = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert trained([user("a"), assistant("b")], bare) == [["assistant: b\n"]]
