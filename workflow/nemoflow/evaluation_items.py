"""The items of tasks that no row to train on may hold."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemoflow import corpus
from nemoflow.errors import UserError
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
        self.items = Items(self._texts(cache))

    def told(self) -> dict[str, Any]:
        """What a manifest says of it."""
        pinned = [corpus.pinned(listed.source) for listed in self.listed]
        return {"pinned": pinned, "texts": self.items.count, "dropped": self.dropped}

    def _texts(self, cache: Path) -> Iterator[str]:
        for listed in self.listed:
            for file in listed.files:
                for _, row in corpus.read_rows(file, listed.source, cache):
                    found = list(self._texts_of(row))
                    if not found:
                        raise UserError(
                            f"{file.path} of {listed.name}: an item has no text in"
                            f" {self._field or 'any field'}; mend items.text_field of the task"
                        )
                    yield from found

    def _texts_of(self, row: Row) -> Iterator[str]:
        return texts(row) if self._field is None else strings(field(row, self._field))
