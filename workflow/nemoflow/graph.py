"""Which phase or step follows which, and which run owns a stage.

A stage of a run's chain has a name: `pretrain.phase1`, `sft`, `rl.swe1`. The short names
`pretrain` and `rl` stand for the last of each.
"""

from collections.abc import Mapping
from typing import Any

from nemoflow.config.base import plain
from nemoflow.config.run import Run
from nemoflow.errors import UserError


def ordered(entries: Mapping[str, Any], what: str) -> list[str]:
    """The names of phases or steps in the order that `after` says, branches left out.

    Raises:
        UserError: `after` names nothing, two come after the same one, or they form a circle.
    """
    chain = {name: e.after for name, e in entries.items() if not getattr(e, "branch", False)}
    for name, e in entries.items():
        if e.after is not None and e.after not in chain:
            raise UserError(
                f"{what}.{name}.after: there is no {e.after} before it;"
                f" known: {', '.join(chain)}. Name one of them, or null for the first"
            )
    followers: dict[str | None, str] = {}
    for name, after in chain.items():
        if after in followers:
            place = f"comes after {after}" if after else "is the first (after: null)"
            raise UserError(
                f"{what}.{name}.after: {followers[after]} already {place}; they must form one line"
            )
        followers[after] = name
    line: list[str] = []
    while (line[-1] if line else None) in followers:
        line.append(followers[line[-1] if line else None])
    if lost := [name for name in chain if name not in line]:
        raise UserError(
            f"{what}.{lost[0]}.after: {', '.join(lost)} come after each other in a circle;"
            " one of them must come after the last of the line"
            + (f" ({line[-1]})" if line else ", or have after: null")
        )
    return line


def phases(run: Run) -> list[str]:
    """The phases of pretraining in order."""
    return ordered(run.pretrain.phases, "pretrain.phases")


def steps(run: Run) -> list[str]:
    """The steps of reinforcement learning in order, without branches."""
    return ordered(run.rl.steps, "rl.steps")


def chain(run: Run) -> list[str]:
    """Every stage with a checkpoint, in order, branches last."""
    branches = [name for name, step in run.rl.steps.items() if step.branch]
    return [
        *(f"pretrain.{phase}" for phase in phases(run)),
        "sft",
        *(f"rl.{step}" for step in (*steps(run), *branches)),
    ]


def full_name(run: Run, stage: str) -> str:
    """`pretrain` as `pretrain.{last phase}`, `rl` as `rl.{last step}`; other names as they are.

    Raises:
        UserError: the run has no such stage.
    """
    name = {"pretrain": f"pretrain.{phases(run)[-1]}", "rl": f"rl.{steps(run)[-1]}"}.get(
        stage, stage
    )
    if name not in chain(run):
        raise UserError(
            f"there is no stage {stage}; known: pretrain, sft, rl, {', '.join(chain(run))}"
        )
    return name


def entry(run: Run, stage: str) -> Any:
    """The phase or step that a stage's full name names."""
    section, _, name = stage.partition(".")
    return run.pretrain.phases[name] if section == "pretrain" else run.rl.steps[name]


def short_name(run: Run, stage: str) -> str:
    """The inverse of `full_name`: the short name where a stage has one."""
    short = stage.partition(".")[0]
    return short if full_name(run, short) == stage else stage


def previous(run: Run, stage: str) -> str | None:
    """The stage whose checkpoint `stage` starts from; None for the first phase."""
    section, _, name = stage.partition(".")
    if section == "sft":
        return full_name(run, "pretrain")
    after = (run.pretrain.phases if section == "pretrain" else run.rl.steps)[name].after
    if after:
        return f"{section}.{after}"
    return "sft" if section == "rl" else None


def start_of(run: Run) -> int:
    """The place in the chain of the first stage that a run owns.

    `eval` owns no stage of the chain. Raises UserError for a name that is none.
    """
    names = chain(run)
    if run.start is None:
        return 0
    if run.start == "eval":
        return len(names)
    first = {"pretrain": f"pretrain.{phases(run)[0]}", "rl": f"rl.{steps(run)[0]}"}
    start = first.get(run.start, run.start)
    if start not in names:
        raise UserError(
            f"start: there is no stage {run.start}; known: pretrain, rl, eval, {', '.join(names)}"
        )
    if run.extends is None:
        raise UserError("start: only a run that extends another can start after its first stage")
    return names.index(start)


def owner(runs: Mapping[str, Run], name: str, stage: str) -> str:
    """The run whose results hold `stage` of run `name`: itself, or the parent it extends."""
    run = runs[name]
    while run.extends is not None and chain(run).index(stage) < start_of(run):
        name = run.extends
        run = runs[name]
    return name


def settings_of(run: Run, stage: str) -> dict[str, Any]:
    """Everything in a run's file that a stage of its chain depends on, names of data included."""
    section, _, name = stage.partition(".")
    if section == "sft":
        return {**plain(run.sft, "options"), "after": phases(run)[-1]}
    whole, entries = (run.pretrain, "phases") if section == "pretrain" else (run.rl, "steps")
    own = plain(getattr(whole, entries)[name], "options")
    return {**plain(whole, entries), entries: {name: own}}
