"""Conversations made of a corpus' text: questions and answers, reasoning, calls of tools.

The same corpus gives the same bytes. They are as long as those of the recipes' sets, about 12 kB,
a few of them more than 100 kB; and hold no special token, for which our rule would drop a row.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from large_tokenizer import NAMED

from nemoflow.errors import UserError
from nemoflow.progress import say

SIGMA, SHORTEST, LONGEST = 0.9, 20, 40_000  # characters of a text, lognormal
USER, ANSWER, REASONING, CALL, RESULT = 500, 900, 2500, 60, 900  # median characters
BETWEEN = 400  # of reasoning between two calls
PROMPTS = ("You are a careful assistant.", "")
SPECIAL = re.compile("|".join(map(re.escape, [*NAMED.values(), "<SPECIAL_"])))
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"search_{index}",
            "description": "Look something up.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "what to look for"},
                    "limit": {"type": "integer", "description": "how many results at most"},
                },
                "required": ["query"],
            },
        },
    }
    for index in ("code", "manuals", "news")
]


class Texts:
    """The corpus' text in pieces, none of them twice."""

    def __init__(self, corpus: Path):
        self._corpus = corpus
        self._documents = self._read()
        self._left = ""
        self.draw = np.random.default_rng(0)

    def _read(self) -> Iterator[str]:
        with open(self._corpus, encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]

    def next(self, median: int) -> str:
        """A text of about so many characters."""
        length = int(np.clip(self.draw.lognormal(np.log(median), SIGMA), SHORTEST, LONGEST))
        while True:
            while len(self._left) < length:
                if (document := next(self._documents, None)) is None:
                    raise UserError(f"{self._corpus} has too little text; ask for fewer MB")
                self._left += document
            piece, self._left = self._left[:length], self._left[length:]
            if not SPECIAL.search(piece):
                return piece


def write(corpus: Path, output: Path, size: int) -> None:
    """Write JSON lines of conversations, `size` bytes and the rest of a row."""
    say(f"making {output.name} …")
    texts, temporary = Texts(corpus), output.with_suffix(".new")
    with open(temporary, "wb") as file:
        number = 0
        while file.tell() < size:
            row = {"id": number, **conversation(texts, number)}
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            number += 1
    temporary.replace(output)


def conversation(texts: Texts, number: int) -> dict[str, Any]:
    """One of four kinds: a question, a chat, a chat with reasoning, one with tools as well."""
    kind, system = number % 4, {"role": "system", "content": PROMPTS[number // 4 % 2]}
    messages = [system] if kind % 2 else []
    for _ in range(1 if kind == 0 else int(texts.draw.integers(1, 8 if kind == 1 else 3))):
        messages.append({"role": "user", "content": texts.next(USER)})
        if kind == 3:
            for call in range(int(texts.draw.integers(1, 8))):
                messages += called(texts, call)
        answer = {"role": "assistant", "content": texts.next(ANSWER)}
        if kind > 1:
            answer["reasoning_content"] = texts.next(REASONING)
        messages.append(answer)
    return {"messages": messages, "tools": TOOLS} if kind == 3 else {"messages": messages}


def called(texts: Texts, number: int) -> list[dict[str, Any]]:
    """A call of a tool and its result."""
    arguments = json.dumps({"query": texts.next(CALL), "limit": number})
    function = {"name": TOOLS[number % len(TOOLS)]["function"]["name"], "arguments": arguments}
    call = {
        "role": "assistant",
        "content": "",
        "reasoning_content": texts.next(BETWEEN),
        "tool_calls": [{"type": "function", "function": function}],
    }
    return [call, {"role": "tool", "content": texts.next(RESULT)}]
