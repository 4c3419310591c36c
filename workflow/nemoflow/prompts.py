"""Rows for reinforcement learning and evaluation items: checked, split, otherwise as they came.

Every field of a row is kept with its type: answers stay the strings, lists or objects they were.
The files are what NeMo-RL's NemoGymDataset reads: one object a line, train.jsonl and
validation.jsonl; a split without rows has no file.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nemoflow import corpus
from nemoflow.errors import UserError
from nemoflow.files import canonical, write_whole
from nemoflow.splits import point

Row = dict[str, Any]
NAMED = 5  # faulty rows named in an error


def make(told: Mapping[str, Any], out_dir: Path, cache: Path) -> dict[str, Any]:
    """Resolve the rows of a spec's sources; what its manifest tells of them."""
    given = told.get("validation")
    training = [corpus.pin(source) for source in told["sources"]]
    validation = [corpus.pin(source) for source in given or []]
    facts = resolve(
        corpus.rows(training, cache),
        corpus.rows(validation, cache) if given is not None else None,
        *(told["holdout"], told["seed"], {"kind": told["kind"]}),
        out_dir,
    )
    return corpus.facts([*training, *validation], cache) | facts


def resolve(
    train_rows: Iterable[Row],
    validation_rows: Iterable[Row] | None,
    holdout: int,
    seed: int,
    settings: Mapping[str, Any],
    out_dir: str | Path,
) -> dict[str, Any]:
    """Write {out_dir}/train.jsonl and validation.jsonl.

    `settings["kind"]`: "rl" rows must have responses_create_params.input (a list of messages)
    and agent_ref (type, name); "pairs" what NeMo-RL's PreferenceDataset reads: context (messages)
    and two completions of different rank; "items" may be any objects.

    Without `validation_rows`, `holdout` rows are moved to validation: of each agent_ref.name its
    share, at least one where it has two prompts, those whose prompt has the lowest seeded hash.
    Rows with one prompt stay together, so that no prompt is in both splits; the number is met as
    closely as that allows.

    Returns {"train": rows, "validation": rows, "agents": {split: {name: rows}}, "in_both":
    prompts in both splits (of given validation rows only)}. UserError naming rows from 1: for a
    missing or ill-typed key, for an unresolved placeholder; and for a holdout that leaves
    nothing to train on, or no rows at all.
    """
    train = _checked(train_rows, settings["kind"], "training")
    given = validation_rows is not None
    validation = _checked(validation_rows, settings["kind"], "validation") if given else []
    if not train and not validation:
        raise UserError("prompts: the sources have no rows")
    if holdout and not given:
        train, validation = _hold_out(train, holdout, seed)
    splits = {"train": train, "validation": validation}
    for name, rows in splits.items():
        _write(Path(out_dir) / f"{name}.jsonl", rows)
    return {
        **{name: len(rows) for name, rows in splits.items()},
        "agents": {name: _agents(rows) for name, rows in splits.items()},
        "in_both": len({_prompt(row) for row in train} & {_prompt(row) for row in validation}),
    }


def _write(path: Path, rows: list[Row]) -> None:
    path.unlink(missing_ok=True)
    if rows:
        # ASCII: a raw U+2028 would end the line for readers that use str.splitlines.
        write_whole(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def _checked(rows: Iterable[Row], kind: str, split: str) -> list[Row]:
    kept, faults = [], []
    for number, row in enumerate(rows, start=1):
        kept.append(row)
        if fault := _fault(row, kind):
            faults.append(f"row {number}: {fault}")
    if faults:
        raise UserError(
            f"prompts: {len(faults)} of {len(kept)} {split} rows cannot be used:"
            f" {'; '.join(faults[:NAMED])}{'; ...' if len(faults) > NAMED else ''}"
        )
    return kept


def _fault(row: Row, kind: str) -> str | None:
    """What is wrong with a row, or None."""
    if "_hf_placeholder" in row:
        return (
            f"it stands for a row of an external set ({row.get('dataset', 'unnamed')}), which"
            " cannot be fetched in this release; resolve it first, or leave such rows out"
        )
    if kind == "pairs":
        return _pair_fault(row)
    if kind != "rl":
        return None
    parameters, agent = row.get("responses_create_params"), row.get("agent_ref")
    if not isinstance(parameters, dict) or not isinstance(parameters.get("input"), list):
        return "responses_create_params.input must be a list of messages"
    if not parameters["input"]:
        return "responses_create_params.input is empty"
    if not isinstance(agent, dict):
        return "agent_ref must be an object with type and name"
    for key in ("type", "name"):
        if not isinstance(agent.get(key), str) or not agent[key]:
            return f"agent_ref.{key} must be a name"
    return None


def _pair_fault(row: Row) -> str | None:
    """What is wrong with a pair of answers, or None."""
    if not isinstance(row.get("context"), list):
        return "context must be a list of messages"
    answers = row.get("completions")
    if not (isinstance(answers, list) and len(answers) == 2 and all(map(_is_answer, answers))):
        return "completions must be two objects with rank (a number) and completion (messages)"
    if answers[0]["rank"] == answers[1]["rank"]:
        return "both completions have the same rank; leave such pairs out"
    return None


def _is_answer(value: Any) -> bool:
    known = isinstance(value, dict) and isinstance(value.get("completion"), list)
    return known and isinstance(value.get("rank"), int | float)


def _hold_out(rows: list[Row], holdout: int, seed: int) -> tuple[list[Row], list[Row]]:
    if holdout >= len(rows):
        raise UserError(
            f"prompts: holdout {holdout} leaves none of {len(rows)} rows to train on; lower it"
        )
    strata: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        strata[_agent(row)][_prompt(row)].append(index)
    sizes = {name: sum(map(len, groups.values())) for name, groups in strata.items()}
    held: set[int] = set()
    for name, wanted in _shares(sizes, holdout).items():
        groups = sorted(strata[name].items(), key=lambda item: point(seed, item[0]))
        taken = 0
        for _, indices in groups[:-1]:  # one prompt stays to train on
            if taken >= wanted:
                break
            held.update(indices)
            taken += len(indices)
    if not held:
        raise UserError("prompts: no agent has two different prompts, so none can be held out")
    train = [row for index, row in enumerate(rows) if index not in held]
    return train, [rows[index] for index in sorted(held)]


def _shares(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` divided in proportion to `sizes` by largest remainders, then at least one each."""
    exact = {name: total * size / sum(sizes.values()) for name, size in sizes.items()}
    shares = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return {name: max(1, share) for name, share in shares.items()}


def _agents(rows: list[Row]) -> dict[str, int]:
    return dict(sorted(Counter(_agent(row) for row in rows).items()))


def _agent(row: Row) -> str:
    agent = row.get("agent_ref")
    return str(agent.get("name", "")) if isinstance(agent, dict) else ""


def _prompt(row: Row) -> str:
    """What the model is asked: the input where there is one, else the whole row."""
    parameters = row.get("responses_create_params")
    asked = parameters.get("input") if isinstance(parameters, dict) else row.get("context")
    return canonical(row if asked is None else asked)
