"""Rows for reinforcement learning and evaluation items: whole, checked, split, counted.

Every field of a row is kept with its type; only rows that stand for a row of another set are
filled, and agent_ref where the prompts file names one for rows without. The files are what
NeMo-RL's NemoGymDataset reads: one object a line, train.jsonl and validation.jsonl; a split without
rows has no file. However many rows there are, they are never in memory together.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemoflow import corpus, import_prompts
from nemoflow.environments import Environments
from nemoflow.errors import UserError
from nemoflow.evaluation_items import ApartFrom
from nemoflow.kept_rows import SPLITS, KeptRows
from nemoflow.listed import Listed
from nemoflow.placeholders import External, Given, filled, gathered
from nemoflow.prompt_holdout import hold_out
from nemoflow.prompt_rows import Row, check, difficulty_of, environment, prompt
from nemoflow.rows import RowCount, Unusable
from nemoflow.source_file import SourceFile
from nemoflow.splits import point


def make(told: Mapping[str, Any], out_dir: Path, cache: Path) -> dict[str, Any]:
    """Write {out_dir}/train.jsonl and validation.jsonl of a spec's sources.

    Returns what the manifest tells: "rows" {in, kept, dropped}; "environments", the same of each,
    with its rows in both splits; "train" and "validation", rows; "in_both", prompts in both splits
    (of given validation rows only); "difficulty", the range of training rows; of "external" sets
    the rows that were asked for; of the tasks of "apart_from" their texts, and the rows dropped for
    them; "source_files" and "pinned".

    Raises:
        UserError: more rows cannot be used than max_dropped allows, none is left, or the holdout
            cannot be met; the first row of each reason is named.
    """
    if told.get("import"):
        return import_prompts.take(told, out_dir)
    inputs = Inputs(told, cache)
    counts = Environments()
    with KeptRows(out_dir) as kept:
        keep_usable(inputs, told, cache, counts, kept)
        counts.rows.check(told.get("max_dropped") or 0.0)
        refuse_empty(told, kept, counts)
        if told["holdout"] and told.get("validation") is None:
            kept.hold_out(hold_out(kept.prompts(), told["holdout"], told["seed"]))
        kept.write()
        return kept.facts(counts, told.get("difficulty")) | inputs.told()


class Inputs:
    """All that the rows of a spec follow from, pinned and listed."""

    def __init__(self, told: Mapping[str, Any], cache: Path):
        self.splits = {
            split: [Listed.of(source, cache) for source in sources]
            for split, sources in zip(
                SPLITS, (told["sources"], told.get("validation") or []), strict=True
            )
        }
        sets = told.get("external") or {}
        self.external = {name: External(entry, cache) for name, entry in sets.items()}
        self.apart_from = ApartFrom(told.get("apart_from") or {}, cache)

    def told(self) -> dict[str, Any]:
        """What a manifest says of them."""
        sources = [listed for split in SPLITS for listed in self.splits[split]]
        tasks = self.apart_from.tasks
        items = [listed for task in tasks.values() for listed in task.listed]
        every = [*sources, *(external.listed for external in self.external.values()), *items]
        found = {
            "source_files": [vars(file) for listed in every for file in listed.files],
            "pinned": [corpus.pinned(listed.source) for listed in sources],
            "external": {name: external.told() for name, external in self.external.items()},
            "apart_from": {name: task.told() for name, task in tasks.items()},
        }
        return {key: value for key, value in found.items() if value}


def read(inputs: Inputs, cache: Path, counts: Environments) -> Iterator[Given]:
    """The rows of all sources in their order; what is no row is counted there."""
    for split in SPLITS:
        for source, files in inputs.splits[split]:
            for file in files:
                yield from read_file(split, source, file, cache, counts)


def read_file(
    split: str, source: corpus.Source, file: SourceFile, cache: Path, counts: Environments
) -> Iterator[Given]:
    """The rows of one file."""
    unread = RowCount()
    for _, row in corpus.read_rows(file, source, cache, unread):
        place = f"{file.path}, row {unread.rows_in}"
        try:
            yield Given(split, place, row, line_of(row))
        except Unusable as fault:
            counts.drop(environment(row), fault.drop.reason, f"{place}: {fault}")
    counts.add_unread(unread)


def line_of(row: Row) -> str:
    """A row as a line of JSON; Unusable where JSON has no such value, as Parquet has."""
    try:
        # ASCII: a raw U+2028 would end the line for readers that use str.splitlines.
        return json.dumps(row, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unusable("not_json", f"it cannot be written as JSON: {error}") from error


def keep_usable(
    inputs: Inputs, told: Mapping[str, Any], cache: Path, counts: Environments, kept: KeptRows
) -> None:
    """Keep the rows that can be used and are asked for; count the others."""
    for given in gathered(read(inputs, cache, counts), inputs.external, kept.folder):
        row = with_agent(given.row, told)
        try:
            row, line, hashed = usable(row, given, inputs, told)
            name = told.get("difficulty") if given.split == "train" else None
            difficulty = difficulty_of(row, name)
        except Unusable as fault:
            counts.drop(environment(row), fault.drop.reason, f"{given.place}: {fault}")
            continue
        counts.keep()
        kept.append(line)
        kept.add(given.split, hashed, environment(row), difficulty)


def usable(row: Row, given: Given, inputs: Inputs, told: Mapping[str, Any]) -> tuple[Row, str, int]:
    """(row, its line of JSON, hash of its prompt) of a row, filled; or Unusable."""
    try:
        row = filled(row, inputs.external)
        check(row, told["kind"])
        if given.split == "train" and (task := inputs.apart_from.find(row)):
            raise Unusable("evaluation_item", f"it holds an item of {task}")
        line = given.line if row is given.row else line_of(row)
        return row, line, point(0, prompt(row))
    except RecursionError as error:
        raise Unusable("not_json", "it is nested too deeply") from error


def with_agent(row: Row, told: Mapping[str, Any]) -> Row:
    """A row with the agent that the prompts file names for rows without."""
    if told["kind"] != "rl" or not told.get("agent") or row.get("agent_ref") is not None:
        return row
    return row | {"agent_ref": dict(told["agent"])}


def refuse_empty(told: Mapping[str, Any], kept: KeptRows, counts: Environments) -> None:
    """UserError where no row is left of a split that has sources."""
    for split, key in zip(SPLITS, ("sources", "validation"), strict=True):
        if told.get(key) and not kept.count(split):
            rows = counts.rows
            listed = ", ".join(f"{n} {reason}" for reason, n in sorted(rows.dropped.items()))
            raise UserError(
                f"prompts: {key} has no rows that can be used; of {rows.rows_in} rows of all"
                f" sources are dropped: {listed or 'none'}"
            )
