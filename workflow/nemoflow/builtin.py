"""Built-in data sources of the tiny runs: real text, arithmetic, facts, conversations, problems.

Every source is a pure function of its name, a seed, a count and a split, so that a corpus, a
mixture or a set of prompts is the same bytes on every machine with the same Python. About one
problem in ten is held out by the sha256 of its text: it is asked in the validation split of
`problems` alone and appears in no other source.
"""

import hashlib
import itertools
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from nemoflow.errors import UserError

Row = dict[str, Any]

OPERANDS = 20  # a and b of every problem are drawn from 0 .. OPERANDS - 1
SMALL_OPERANDS = 10
PIECE_CHARACTERS = 600
SYSTEM_FOLDERS = {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__"}
# How often an example answer is boxed, by the way the question is put: a reward that accepts only
# boxed answers then has both form and arithmetic to teach.
BOXED_SHARE = {"What is {a}+{b}?": 0.9, "Compute {a}+{b}.": 0.15}

# Sums in plain text are put in many ways, so that what is learned is the sum and not one form.
PLAIN_QUESTIONS = (
    "Q: What is {a}+{b}?\nA: {c}",
    "Q: Compute {a}+{b}.\nA: It is {c}.",
    "What is {a}+{b}? It is {c}.",
    "Compute {a}+{b}. Answer: {c}",
    r"Problem: {a}+{b}. Solution: \boxed{{{c}}}",
)

ANTONYMS = (
    "hot cold,big small,fast slow,light dark,high low,open shut,young old,rich poor,happy sad,"
    "strong weak,wet dry,hard soft,early late,full empty,clean dirty,loud quiet,long short,"
    "thick thin,wide narrow,deep shallow,sweet bitter,sharp blunt,brave timid,cheap dear"
)
SOUNDS = {
    "dog": "barks",
    "cat": "meows",
    "cow": "moos",
    "duck": "quacks",
    "horse": "neighs",
    "lion": "roars",
    "sheep": "bleats",
    "snake": "hisses",
    "wolf": "howls",
    "bee": "buzzes",
    "frog": "croaks",
    "owl": "hoots",
}
COLOURS = {
    "sky": "blue",
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "gold": "yellow",
    "carrot": "orange",
    "plum": "purple",
    "rose": "pink",
    "wood": "brown",
}


def is_held_out(a: int, b: int) -> bool:
    """Whether the problem a+b is kept for evaluation (about one in ten)."""
    return hashlib.sha256(f"{a}+{b}".encode()).digest()[0] < 26


def problems_below(operands: int, held_out: bool) -> list[tuple[int, int]]:
    """All (a, b) with 0 <= a, b < operands, of the training or of the evaluation side."""
    pairs = itertools.product(range(operands), repeat=2)
    return [pair for pair in pairs if is_held_out(*pair) == held_out]


def facts_table() -> list[tuple[str, str, list[str]]]:
    """Every fact as (stem, answer, all answers of its kind): "The sky is" wants " blue"."""
    pairs = [pair.split() for pair in ANTONYMS.split(",")]
    words = [word for pair in pairs for word in pair]
    table = [
        (f"The opposite of {left} is", right, words)
        for pair in pairs
        for left, right in (pair, pair[::-1])
    ]
    table += [(f"The {animal}", sound, list(SOUNDS.values())) for animal, sound in SOUNDS.items()]
    table += [
        (f"The colour of {thing} is", colour, list(COLOURS.values()))
        for thing, colour in COLOURS.items()
    ]
    return table


def turn(role: str, content: str) -> str:
    """One turn of a conversation as text, as the tiny runs' chat template writes it."""
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def question_about(stem: str) -> str:
    """The question that a user asks to hear a fact: its stem, to be completed."""
    return f"Complete: {stem}"


def python_library(random: Random, split: str) -> Iterator[Row]:
    """Pieces of about 600 characters of the running Python's standard library, as {"text"}.

    Real code and prose: sources with their docstrings, whole lines, without tests and packages.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [
        path
        for path in sorted(root.rglob("*.py"))
        if not SYSTEM_FOLDERS.intersection(path.relative_to(root).parts)
    ]
    if not files:
        raise UserError(f"built-in source python_library: no sources in {root}; use another Python")
    while True:
        lines = random.choice(files).read_text(encoding="utf-8", errors="ignore").splitlines(True)
        start = random.randrange(max(1, len(lines) - 20))
        ends = itertools.accumulate(map(len, lines[start:]))
        size = sum(1 for end in ends if end <= PIECE_CHARACTERS)
        piece = "".join(lines[start : start + size]).strip()
        if len(piece) > PIECE_CHARACTERS // 4:
            yield {"text": piece}


def equations(random: Random, split: str) -> Iterator[Row]:
    """Lists of sums, one a line: "7+5=12", as {"text"}."""
    pairs = problems_below(OPERANDS, held_out=False)
    while True:
        chosen = [random.choice(pairs) for _ in range(random.randint(8, 16))]
        yield {"text": "\n".join(f"{a}+{b}={a + b}" for a, b in chosen)}


def questions(random: Random, split: str) -> Iterator[Row]:
    """Lists of questions with answers: "Q: What is 7+5?", "A: 12", and otherwise, as {"text"}."""
    pairs = problems_below(OPERANDS, held_out=False)
    while True:
        chosen = [random.choice(pairs) for _ in range(random.randint(3, 7))]
        yield {
            "text": "\n".join(
                random.choice(PLAIN_QUESTIONS).format(a=a, b=b, c=a + b) for a, b in chosen
            )
        }


def facts(random: Random, split: str) -> Iterator[Row]:
    """Fact sentences, several a text: "The opposite of hot is cold.", as {"text"}."""
    table = facts_table()
    while True:
        chosen = random.sample(table, random.randint(6, 12))
        yield {"text": " ".join(f"{stem} {answer}." for stem, answer, _ in chosen)}


def fact_chats(random: Random, split: str) -> Iterator[Row]:
    """Conversations about facts as plain text with the chat tokens, as {"text"}.

    They train the chat tokens in pretraining; arithmetic never appears in a chat there.
    """
    table = facts_table()
    while True:
        chosen = random.sample(table, random.randint(2, 4))
        yield {
            "text": "".join(
                turn("user", question_about(stem)) + turn("assistant", f"{stem} {answer}.")
                for stem, answer, _ in chosen
            )
        }


def chats(random: Random, split: str) -> Iterator[Row]:
    r"""Conversations to fine-tune on, as {"messages"}: seven in ten about sums, else facts.

    "What is 7+5?" is mostly answered by "\boxed{12}", "Compute 7+5." mostly by "It is 12.".
    """
    pairs, table = problems_below(OPERANDS, held_out=False), facts_table()
    while True:
        if random.random() < 0.7:
            a, b = random.choice(pairs)
            style = random.choice(list(BOXED_SHARE))
            boxed = random.random() < BOXED_SHARE[style]
            question = style.format(a=a, b=b)
            answer = rf"\boxed{{{a + b}}}" if boxed else f"It is {a + b}."
        else:
            stem, word, _ = random.choice(table)
            question, answer = question_about(stem), f"{stem} {word}."
        yield {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }


def problem_rows(random: Random, split: str, operands: int) -> Iterator[Row]:
    """RL rows with a verifiable answer; the validation split holds the held-out problems alone."""
    pairs = problems_below(operands, held_out=split == "validation")
    prompts = [(style, a, b) for a, b in pairs for style in BOXED_SHARE]
    while True:
        random.shuffle(prompts)
        for style, a, b in prompts:
            question = style.format(a=a, b=b)
            yield {
                "responses_create_params": {"input": [{"role": "user", "content": question}]},
                "agent_ref": {"type": "responses_api_agents", "name": "boxed_math"},
                "question": question,
                "expected_answer": str(a + b),
            }


def problems(random: Random, split: str) -> Iterator[Row]:
    """Sums of two numbers below 20, in both ways of asking, each once before any comes again."""
    return problem_rows(random, split, OPERANDS)


def small_problems(random: Random, split: str) -> Iterator[Row]:
    """As `problems`, of two numbers below 10."""
    return problem_rows(random, split, SMALL_OPERANDS)


def fact_choices(random: Random, split: str) -> Iterator[Row]:
    """Facts as multiple choice, {"stem", "choices", "label"}: one of four, each fact once a round.

    `label` is the right choice's index. A choice follows its stem after one blank.
    """
    table = facts_table()
    while True:
        random.shuffle(table)
        for stem, answer, answers in table:
            others = [word for word in answers if word != answer and word not in stem.split()]
            choices = [answer, *random.sample(others, 3)]
            random.shuffle(choices)
            yield {"stem": stem, "choices": choices, "label": choices.index(answer)}


SOURCES: dict[str, Callable[[Random, str], Iterator[Row]]] = {
    source.__name__: source
    for source in (
        python_library,
        equations,
        questions,
        facts,
        fact_chats,
        chats,
        problems,
        small_problems,
        fact_choices,
    )
}
NAMES = tuple(SOURCES)


def rows(name: str, seed: int, count: int, split: str = "train") -> Iterator[Row]:
    """The first `count` rows of the built-in source `name`, `split` "train" or "validation".

    Equal arguments give equal rows; a larger count continues the same rows. Raises UserError for
    an unknown name or split.
    """
    if name not in SOURCES:
        raise UserError(f"no built-in source is called {name!r}; there are {', '.join(NAMES)}")
    if split not in ("train", "validation"):
        raise UserError(f"built-in source {name}: split is train or validation, not {split!r}")
    random = Random(f"{name}/{seed}/{split}")
    return itertools.islice(SOURCES[name](random, split), count)
