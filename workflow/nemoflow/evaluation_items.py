"""The items of tasks: their texts, and the rows to train on that hold one."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from nemoflow import corpus
from nemoflow.errors import UserError
from nemoflow.files import write_whole
from nemoflow.filters import field
from nemoflow.listed import Listed
from nemoflow.overlap import Items
from nemoflow.prompt_rows import Row, strings, texts


class ApartFrom:
    """The tasks by name; a row is compared with all of them at once, and counted for the first."""

    def __init__(self, told: Mapping[str, Mapping[str, Any]], cache: Path):
        self.tasks = {name: EvaluationItems(entry, cache) for name, entry in told.items()}
        self._all = Items.union([task.items for task in self.tasks.values()])

    def find(self, row: Row) -> str | None:
        """The task of which a row holds an item, counted there; None where it holds none."""
        if not self.tasks:
            return None
        for text in filter(self._all.overlaps, texts(row)):
            for name, task in self.tasks.items():
                if task.items.overlaps(text):
                    task.dropped += 1
                    return name
        return None


class EvaluationItems:
    """A task's items: `told` has their sources, and the field of their text.

    Without a field they are rows of ours, of which every text counts. `dropped` counts the rows
    that hold one. UserError for an item without text.
    """

    def __init__(self, told: Mapping[str, Any], cache: Path):
        self.listed = [Listed.of(source, cache) for source in told["sources"]]
        self._field, self.dropped = told.get("text_field"), 0
        self.items = Items(
            text for found in texts_of(self.listed, self._field, cache) for text in found
        )

    def told(self) -> dict[str, Any]:
        """What a manifest says of it."""
        pinned = [corpus.pinned(listed.source) for listed in self.listed]
        return {"pinned": pinned, "texts": self.items.count, "dropped": self.dropped}


def texts_of(listed: Iterable[Listed], text_field: str | None, cache: Path) -> Iterator[list[str]]:
    """The texts of each item; of rows of ours, which have no field of their text, all that count.

    Raises:
        UserError: an item has none.
    """
    for source in listed:
        for file in source.files:
            for _, row in corpus.read_rows(file, source.source, cache):
                asked = texts(row) if text_field is None else strings(field(row, text_field))
                if not (found := list(asked)):
                    raise UserError(
                        f"{file.path} of {source.name}: an item has no text in"
                        f" {text_field or 'any field'}; mend items.text_field of the task"
                    )
                yield found


def make(
    told: Mapping[str, Any] | None, prompts: Path | None, out_dir: Path, cache: Path
) -> dict[str, Any]:
    """Write the text of each item of a task into {out_dir}/items.jsonl.

    `told` has the items' source and text_field; without, they are the validation rows of a folder
    of prompts. Returns {"items": how many, "source_files", "pinned"}, the latter two of a source.

    Raises:
        UserError: there is none, or one without text.
    """
    facts: dict[str, Any] = {}
    if told is None:
        rows = map(msgspec.json.decode, (prompts / "validation.jsonl").read_bytes().splitlines())
        items = [list(texts(row)) for row in rows]
    else:
        listed = Listed.of(told["source"], cache)
        items = list(texts_of([listed], told["text_field"], cache))
        facts["source_files"] = [vars(file) for file in listed.files]
        facts["pinned"] = corpus.pinned(listed.source)
    if not items:
        raise UserError("the task has no items: what its source, or prompts, name is empty")
    lines = [msgspec.json.encode({"text": "\n".join(found)}) + b"\n" for found in items]
    write_whole(out_dir / "items.jsonl", b"".join(lines))
    return {"items": len(items), **facts}
