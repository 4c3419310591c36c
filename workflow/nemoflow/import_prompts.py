"""Rows of prompts that are split already, as they are: found, checked, copied.

A path names a folder with train.jsonl, validation.jsonl, or both, or one file, which is to train
on. Every line must be a row that its trainer reads; whoever wants rows filled, dropped or held out
names the files as sources instead.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemoflow import imports, jsonl, specs
from nemoflow.config import Config
from nemoflow.environments import Environments
from nemoflow.errors import UserError
from nemoflow.kept_rows import SPLITS, Chosen
from nemoflow.progress import Bytes
from nemoflow.prompt_rows import Row, check, difficulty_of, environment, prompt
from nemoflow.rows import Unusable
from nemoflow.splits import point

SHOWN = 10  # names in a message
INSTEAD = "mend the file, or name it in sources instead, where rows are filled and dropped"


def find(written: str) -> dict[str, Path]:
    """{split: file} at a path as the user wrote it.

    Raises:
        UserError: there are none; says what lies there.
    """
    path = Path(written)
    if path.is_file():
        if path.suffix != ".jsonl":
            raise UserError(f"import: {written}: not .jsonl, a file of one row on each line")
        return {"train": path}
    found = {split: path / f"{split}.jsonl" for split in SPLITS}
    found = {split: file for split, file in found.items() if file.is_file()}
    if not found:
        there = f"in it lie {listing(path)}" if path.is_dir() else "there is no such path"
        raise UserError(f"import: {written}: no train.jsonl, no validation.jsonl: {there}")
    return found


def listing(folder: Path) -> str:
    """What lies in a folder, as far as a message has room."""
    names = sorted(file.name for file in folder.iterdir())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "no files") + more


def take(told: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Copy the rows at a spec's path into `folder`, and check them; what the manifest tells.

    Raises:
        UserError: as `find`; or a line is no row that its trainer reads: names file and row.
    """
    found = find(told["import"])
    with Bytes("copying", sum(file.stat().st_size for file in found.values())) as progress:
        for split, file in found.items():
            for size in imports.copied(file, folder / f"{split}.jsonl"):
                progress.add(size)
    chosen, counts = Chosen(), Environments()
    for split, file in found.items():
        # What was copied is checked: the file itself may change meanwhile.
        for number, row in rows(folder / f"{split}.jsonl", file):
            try:
                check(row, told["kind"])
                name = told.get("difficulty") if split == "train" else None
                known = difficulty_of(row, name)
                chosen.add(split, point(0, prompt(row)), environment(row), known)
            except Unusable as fault:
                raise UserError(f"{file}, row {number}: {fault}; {INSTEAD}") from None
            counts.keep()
        if not chosen.count(split):
            raise UserError(f"{file}: it has no rows; {INSTEAD}")
    return chosen.facts(counts, told.get("difficulty"))


def rows(copy: Path, file: Path) -> Iterator[tuple[int, Row]]:
    """(number, row) of a file that was copied, from 1; every line is one."""
    with open(copy, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            row, reason = jsonl.parse(line)
            if reason:
                raise UserError(f"{file}, row {number}: {reason}: {row}; {INSTEAD}")
            yield number, row


def check_early(config: Config, prompts: str, product: Path) -> None:
    """Raise UserError where the path of prompts to import holds none."""
    identity = specs.of(config, "resolve", {"prompts": prompts}).identity
    imports.refuse_missing(identity, product, config.place("prompts", prompts, "import"), find)
