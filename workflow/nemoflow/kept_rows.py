"""The rows of prompts that are kept, on their way into the files of two splits."""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from nemoflow.environments import Environments

SPLITS = ("train", "validation")
Summary = dict[str, float]


class Chosen:
    """What is in memory of kept rows: the split, environment, prompt and difficulty of each.

    21 bytes a row: of a prompt there is a hash.
    """

    def __init__(self) -> None:
        self._splits, self._prompts = bytearray(), array("Q")
        self._environments, self._names = array("I"), dict[str, int]()
        self._difficulties = array("d")

    def add(self, split: str, prompt: int, environment: str, difficulty: float | None) -> None:
        """Append a row."""
        self._splits.append(SPLITS.index(split))
        self._prompts.append(prompt)
        self._environments.append(self._names.setdefault(environment, len(self._names)))
        self._difficulties.append(math.nan if difficulty is None else difficulty)

    def count(self, split: str) -> int:
        """The rows of a split."""
        return self._splits.count(SPLITS.index(split))

    def prompts(self) -> Iterator[tuple[int, str]]:
        """(hash of its prompt, environment) of every row."""
        return zip(self._prompts, self._each_environment(), strict=True)

    def hold_out(self, prompts: set[int]) -> None:
        """Move the rows with these prompts to validation."""
        for place, prompt in enumerate(self._prompts):
            if prompt in prompts:
                self._splits[place] = SPLITS.index("validation")

    def facts(self, counts: Environments, difficulty: str | None) -> dict[str, Any]:
        """What the manifest tells of the rows, with what `counts` has of those that are dropped."""
        splits = (SPLITS[code] for code in self._splits)
        found = {
            "rows": counts.rows.as_dict(),
            "environments": counts.told(zip(self._each_environment(), splits, strict=True)),
            **{split: self.count(split) for split in SPLITS},
            "in_both": self._in_both(),
        }
        if difficulty is not None:
            found["difficulty"] = {"field": difficulty, **self._difficulty()}
        return found

    def _in_both(self) -> int:
        """How many prompts are in both splits."""
        found: tuple[set[int], set[int]] = set(), set()
        for code, prompt in zip(self._splits, self._prompts, strict=True):
            found[code].add(prompt)
        return len(found[0] & found[1])

    def _difficulty(self) -> dict[str, Any]:
        """{"min", "mean", "max", "environments": {name: the same}} of the training rows."""
        found: dict[str, list[float]] = defaultdict(list)
        rows = zip(self._splits, self._each_environment(), self._difficulties, strict=True)
        for code, name, value in rows:
            if SPLITS[code] == "train":
                found[name].append(value)
        if not found:
            return {}
        whole = summary(value for values in found.values() for value in values)
        return {**whole, "environments": {n: summary(v) for n, v in sorted(found.items())}}

    def _each_environment(self) -> Iterator[str]:
        names = list(self._names)
        return (names[place] for place in self._environments)


class KeptRows(Chosen):
    """Kept rows, as lines of JSON in a temporary file in `folder`, until they are written there."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115  (__exit__ closes it)

    def __enter__(self) -> "KeptRows":
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def append(self, line: str) -> None:
        """The line of the row that is added; it has no line end in it."""
        self._file.write(f"{line}\n".encode())

    def write(self) -> None:
        """Write {folder}/{split}.jsonl of every split that has rows, in the order they came."""
        self._file.seek(0)
        with ExitStack() as opened:
            files = {
                code: opened.enter_context(open(self.folder / f"{SPLITS[code]}.jsonl", "wb"))
                for code in sorted({*self._splits})
            }
            for code, line in zip(self._splits, self._file, strict=True):
                files[code].write(line)


def summary(values: Iterable[float]) -> Summary:
    """The range of some numbers, at least one, and their mean to 6 digits."""
    known = list(values)
    mean = float(f"{math.fsum(known) / len(known):.6g}")
    return {"min": min(known), "mean": mean, "max": max(known)}
