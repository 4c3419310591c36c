"""Rows that stand for a row of another set, made whole.

Such a row has `_hf_placeholder: {row, question_template}` and, as `dataset`, the name of the set.
`row` counts the rows of the set's files, in the order of their names, from 0. What becomes of it
keeps every other field, and has `question`, `expected_answer` and `responses_create_params`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import msgspec

from nemoflow import corpus
from nemoflow.filters import MISSING, field
from nemoflow.listed import Listed
from nemoflow.progress import say
from nemoflow.prompt_rows import Row
from nemoflow.rows import RowCount, Unusable

MARK = "_hf_placeholder"


class Given(NamedTuple):
    """A row as it came: for which split, its place in words, itself, and as a line of JSON."""

    split: str
    place: str
    row: Row
    line: str


class External:
    """A set that rows stand for, as the prompts file describes it; its source is pinned.

    In memory are the question and the answer of the rows that are asked for, no others.
    """

    def __init__(self, told: Mapping[str, Any], cache: Path):
        self.listed = Listed.of(told["source"], cache)
        self._told, self._cache = told, cache
        self._found: dict[int, tuple[Any, Any] | None] = {}

    def told(self) -> dict[str, Any]:
        """What a manifest says of it: how many rows were asked for."""
        return {"pinned": corpus.pinned(self.listed.source), "rows": len(self._found)}

    def ask(self, number: int) -> None:
        """Note that a row is asked for."""
        self._found[number] = None

    def fetch(self) -> None:
        """Read the set once, as far as rows are asked for."""
        last, number = max(self._found, default=-1), -1
        if self._found:
            say(f"{self.listed.name}: looking for {len(self._found):,} rows")
        for file in self.listed.files:
            counts, before = RowCount(), number  # a row that cannot be read keeps its number
            for _, row in corpus.read_rows(file, self.listed.source, self._cache, counts):
                number = before + counts.rows_in
                if number in self._found:
                    told = (field(row, self._told[key]) for key in ("question", "answer"))
                    self._found[number] = tuple(told)
                if number >= last:
                    return
            number = before + counts.rows_in

    def fill(self, row: Row) -> Row:
        """The row whole; Unusable where the set has not what it stands for."""
        number, name = numbered(row), f"{row['dataset']} ({self.listed.name})"
        if self._found.get(number) is None:
            raise Unusable("no_such_row", f"{name} has no row {number}")
        question, answer = self._found[number]
        for key, value in (("question", question), ("answer", answer)):
            if value is MISSING or value is None or (key == "question" and not is_text(value)):
                raise Unusable(
                    "missing_key", f"row {number} of {name} has no {self._told[key]} ({key})"
                )
        asked, question = STYLES[self._told["style"]](question, row[MARK].get("question_template"))
        return {key: value for key, value in row.items() if key != MARK} | {
            "question": question,
            "expected_answer": first_answer(answer),
            "responses_create_params": {"input": [{"role": "user", "content": asked}]},
        }


def is_text(value: Any) -> bool:
    """Whether a value is text with something in it."""
    return isinstance(value, str) and bool(value.strip())


def numbered(row: Row) -> int:
    """The row that a row stands for; Unusable where it does not say it."""
    told = row[MARK]
    number = told.get("row") if isinstance(told, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise Unusable("bad_placeholder", f"{MARK}.row must be a number from 0")
    return number


def dapo(question: str, template: Any) -> tuple[str, str]:
    """(what is asked, the question) of a set like DAPO-Math-17k.

    Its first and last paragraph, which say how to answer, give way to those of the template.
    """
    if not isinstance(template, dict) or not all(isinstance(t, str) for t in template.values()):
        raise Unusable("bad_placeholder", f"{MARK}.question_template must have prefix and suffix")
    paragraphs = question.split("\n\n")
    inner = "\n\n".join(paragraphs[1:-1]) if len(paragraphs) > 2 else question
    whole = f"{template.get('prefix', '')}{inner}{template.get('suffix', '')}".rstrip("\n")
    return whole, whole


def skywork(question: str, template: Any) -> tuple[str, str]:
    """The same of a set like Skywork-OR1: the question in the template's place for it."""
    if not isinstance(template, str):
        raise Unusable("bad_placeholder", f"{MARK}.question_template must be text")
    whole = template.replace("{question}", question) if "{question}" in template else question
    return whole, question


STYLES = {"dapo": dapo, "skywork": skywork}


def first_answer(answer: Any) -> Any:
    """An answer as verifiers compare it: the first of a list or object that stands in a text.

    Any other text stays as it is: "34" is no number. What is inside of a list keeps its type.
    """
    if not isinstance(answer, str):
        return answer
    try:
        decoded = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return answer
    if isinstance(decoded, list) and decoded:
        return decoded[0]
    if isinstance(decoded, dict) and decoded:
        return next(iter(decoded.values()))
    return answer


def filled(row: Row, sets: Mapping[str, External]) -> Row:
    """The row that a row stands for; itself where it stands for none.

    Raises:
        Unusable: its set is not known, or has no such row.
    """
    return set_of(row, sets).fill(row) if MARK in row else row


def set_of(row: Row, sets: Mapping[str, External]) -> External:
    """The set of a row that stands for one of its rows."""
    name = row.get("dataset")
    if not isinstance(name, str) or name not in sets:
        known = ", ".join(sets) or "none"
        raise Unusable(
            "unknown_set", f"it stands for a row of {name}, which external does not name ({known})"
        )
    return sets[name]


def gathered(rows: Iterable[Given], sets: Mapping[str, External], folder: Path) -> Iterator[Given]:
    """The same rows, once the sets have what they stand for.

    Meanwhile the rows are in a temporary file in `folder`.
    """
    if not sets:
        yield from rows
        return
    with TemporaryFile(dir=folder) as spool:
        for split, place, row, line in rows:
            spool.write(f"{json.dumps([split, place])}\n{line}\n".encode())
            if MARK in row:
                with suppress(Unusable):  # told when it is filled
                    set_of(row, sets).ask(numbered(row))
        for external in sets.values():
            external.fetch()
        spool.seek(0)
        while told := spool.readline():
            line = spool.readline().rstrip(b"\n")
            yield Given(*json.loads(told), msgspec.json.decode(line), line.decode())
