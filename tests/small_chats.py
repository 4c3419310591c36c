"""Conversations of every shape that a chat can have, from a seed; and what becomes of them."""

import json
import random
import re

import msgspec
import numpy as np

import small_tokenizer
from nemoflow.chat import Renderer

CHATML, NEMOTRON = (
    (small_tokenizer.TEMPLATES / f"{name}.jinja").read_text() for name in ("chatml", "nemotron3")
)
REASONING = {"off": 0.0, "low_effort": 0.0, "history": "drop"}
SETTINGS = {
    "messages_field": "messages",
    "tools_field": "tools",
    "id_field": "id",
    "duplicates": "drop",
    "reasoning": REASONING,
}
MARKERS = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")

WORDS = (
    *("the", " quick", "Fox", " don't", "x86_64", " 3.14", "==", "//!!", "...", "naïve", " straße"),
    *("東京", "한국어", "हिन्दी", "👍🏽", "🇩🇪", "cafe\u0301", "ﬁ"),
    *("\u00a0", "\u3000", "\u2028", "\x85", "\v", "\t", "  ", "\n", "\r\n", "\n\n", " \n"),
    *("<b>", "&amp;", '"', "\\", "{{ x }}", "{%", "</", "|>", "<|"),
)
BLANK = ("", " ", "\n", " \t\n", "\u3000")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": " Find <things> & more.\n",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}, "where": {"type": "object"}},
                "required": ["query"],
            },
        },
    },
    {"name": "now", "parameters": {}},
]


def user(content):
    return {"role": "user", "content": content}


def assistant(content, reasoning=None, **fields):
    return {"role": "assistant", "content": content, "reasoning_content": reasoning, **fields}


def tool(content):
    return {"role": "tool", "content": content}


def system(content):
    return {"role": "system", "content": content}


def unmarked(template):
    """A template that does not say what the model writes."""
    return MARKERS.sub("", template)


def renderer(folder, template, encoder=None, reasoning=None, **settings):
    """The renderer of a source that says nothing but this."""
    modes = REASONING | (reasoning or {})
    told = SETTINGS | {"template": template, "reasoning": modes} | settings
    return Renderer(folder, told, encoder)


def one(renderer, row):
    """The sequences of one row, or why there are none."""
    made = renderer.render("", [(0, msgspec.json.encode(row))])
    return made.kept[0] if made.kept else made.dropped[0]


def rendered(folder, rows, template=NEMOTRON, **settings):
    """What becomes of rows of a file."""
    lines = [(number, json.dumps(row).encode()) for number, row in enumerate(rows)]
    return renderer(folder, template, **settings).render("a", lines)


def stretches(folder, sequence):
    """A sequence as [(text, whether it is trained)]."""
    assert sequence.ids.dtype == np.int32 and sequence.mask.dtype == np.uint8
    assert sequence.ids.shape == sequence.mask.shape
    edges = np.flatnonzero(np.diff(sequence.mask)) + 1
    parts = zip(np.split(sequence.ids, edges), np.split(sequence.mask, edges), strict=True)
    decode = folder.huggingface.decode
    return [(decode(ids.tolist(), skip_special_tokens=False), int(mask[0])) for ids, mask in parts]


class Chats:
    """Draws conversations; `text` is a text of theirs."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def row(self, thinks=0.5):
        """A row that can be trained on; `thinks` is the share of those that reason."""
        messages = [system(self.text())] if self._is(0.5) else []
        given = {"messages": messages}
        if self._is(0.12):
            given["tools"] = json.dumps(TOOLS) if self._is(0.5) else TOOLS
        reasons = 0.7 * self._is(thinks)
        for _ in range(self._random.choice((1, 1, 1, 1, 2, 3))):
            messages += [user(self.text()) for _ in range(self._most(0.9, 3))]
            messages += self._turn("tools" in given, reasons)
        messages += [user(self.text())] * self._is(0.1)
        if not any(message["role"] == "assistant" for message in messages):
            messages.append(self._answer(reasons))
        return given

    def text(self):
        if self._is(0.08):
            return self._random.choice(BLANK)
        words = self._random.choices(WORDS, k=self._random.randint(1, 4))
        words[0] = words[0].strip() or "a"  # seldom a blank: see reasoning
        return "".join(words)

    def _is(self, share):
        return self._random.random() < share

    def _most(self, share, most):
        """Mostly one."""
        return 1 if self._is(share) else self._random.randint(0, most)

    def _turn(self, has_tools, reasons):
        """What follows a user: answers, and calls of tools with their results."""
        for _ in range(self._random.randint(0, 2) if has_tools else 0):
            calls = [self._call() for _ in range(self._random.randint(1, 2))]
            yield self._answer(reasons, tool_calls=calls)
            yield from (tool(self.text()) for _ in calls)
        for _ in range(self._most(0.9, 2)):
            yield self._answer(reasons)

    def _answer(self, reasons, **fields):
        reasoning = self._reasoning() if self._is(reasons) else self._random.choice((None, "", " "))
        content = self.text()
        return assistant(content if self._is(0.9) or not fields else None, reasoning, **fields)

    def _reasoning(self):
        """One in fifty begins with a newline, or blanks that hold one."""
        text = self.text()
        return self._random.choice(("\n", "\r\n", " \n")) + text if self._is(0.02) else text

    def _call(self):
        value = self._random.choice(
            (self.text(), 3, -1.5, True, None, [1, self.text()], {"a": {"b": [self.text()]}}, [])
        )
        arguments = {"query": value} if self._is(0.8) else {}
        function = {"name": self._random.choice(("look_up", "now")), "arguments": arguments}
        if self._is(0.5):
            function["arguments"] = json.dumps(arguments, ensure_ascii=self._is(0.5))
        return {"type": "function", "function": function} if self._is(0.7) else function

    def maybe_spoiled(self, share):
        """(a row, None), or (one of another fault, the reason for which it is dropped)."""
        row = self.row()
        if not self._is(share):
            return row, None
        reason, spoil = self._random.choice(FAULTS)
        return spoil(row, self._random.choice(row["messages"])) or row, reason


FAULTS = [  # (why, what is done to a row and one of its messages)
    ("missing_messages", lambda row, turn: {"conversation": row["messages"]}),
    ("empty_messages", lambda row, turn: {**row, "messages": []}),
    ("malformed_message", lambda row, turn: turn.update(content=3)),
    ("malformed_message", lambda row, turn: turn.pop("role") and None),
    ("malformed_message", lambda row, turn: row["messages"].append(assistant("", ["why"]))),
    ("unknown_role", lambda row, turn: turn.update(role="judge")),
    ("wrong_role_order", lambda row, turn: row["messages"].append(system(""))),
    ("wrong_role_order", lambda row, turn: row["messages"].insert(0, tool(""))),
    ("no_assistant", lambda row, turn: {**row, "messages": [user("a"), user("b")]}),
    ("control_token", lambda row, turn: turn.update(content="a<|im_end|>\n")),
    (
        "bad_tool_arguments",
        lambda row, turn: row["messages"].append(
            assistant("", tool_calls=[{"name": "now", "arguments": '{"a": '}])
        ),
    ),
    ("bad_tools", lambda row, turn: {**row, "tools": '[{"name": '}),
]
