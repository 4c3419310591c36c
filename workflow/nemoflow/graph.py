"""Which phase or step follows which, and which run holds the model of a stage.

A stage of a run's chain has a name: `pretrain.phase1`, `sft`, `rl.swe1`. The short names
`pretrain` and `rl` stand for the last of each. Beside the chain stand the averages of a phase's
checkpoints, `merged.500b`, and `merged` for the last of them.
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


def merged(run: Run) -> list[str]:
    """The stages that are averages of checkpoints, in the order of the config."""
    windows = run.pretrain.merge.windows if run.pretrain.merge else ()
    return [f"merged.{window}" for window in windows]


def full_name(run: Run, stage: str) -> str:
    """`pretrain` as `pretrain.{last phase}`, `rl` as `rl.{last step}`; other names as they are.

    Raises:
        UserError: the run has no such stage.
    """
    averages = merged(run)
    lasts = {"pretrain": f"pretrain.{phases(run)[-1]}", "rl": f"rl.{steps(run)[-1]}"}
    lasts |= {"merged": averages[-1]} if averages else {}
    name = lasts.get(stage, stage)
    if name not in chain(run) + averages:
        known = ", ".join([*lasts, *chain(run), *averages])
        raise UserError(f"there is no stage {stage}; known: {known}")
    return name


def trained(run: Run, stage: str) -> str:
    """The stage of the chain whose checkpoints a stage (full name) is of; an average's phase."""
    return f"pretrain.{run.pretrain.merge.phase}" if stage.startswith("merged.") else stage


def entry(run: Run, stage: str) -> Any:
    """The phase or step that a stage's full name names."""
    section, _, name = stage.partition(".")
    return run.pretrain.phases[name] if section == "pretrain" else run.rl.steps[name]


def first_iteration(run: Run, phase: str) -> int:
    """The iteration at which a phase begins to count: where the one that it continues stops."""
    entry = run.pretrain.phases[phase]
    continued = entry.init == "continue" and entry.after in run.pretrain.phases
    return run.pretrain.phases[entry.after].stop_iteration if continued else 0


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

    `eval` owns no stage of the chain. Raises UserError for a name that is none, and for a start
    without anything to start from.
    """
    names = chain(run)
    if run.start is None:
        if run.init is not None:
            raise UserError(
                "init: say where the imported model goes in: start: sft, or another stage of"
                f" {', '.join(names)}; it stands in the place of the stage before"
            )
        return 0
    if run.start == "eval":
        return len(names)
    first = {"pretrain": f"pretrain.{phases(run)[0]}", "rl": f"rl.{steps(run)[0]}"}
    start = first.get(run.start, run.start)
    if start not in names:
        raise UserError(
            f"start: there is no stage {run.start}; known: pretrain, rl, eval, {', '.join(names)}"
        )
    if run.extends is None and run.init is None:
        raise UserError(
            "start: only a run that extends another can start after its first stage, or one that"
            " imports a model (init)"
        )
    return names.index(start)


def stand_in(run: Run) -> str | None:
    """The stage in whose place a run's imported model stands.

    None for a run that imports none, and where it goes into the very first phase.
    """
    if run.init is None:
        return None
    names, first = chain(run), start_of(run)
    return previous(run, names[first]) if first < len(names) else full_name(run, "rl")


def own_stages(run: Run) -> list[str]:
    """The stages that a run trains: from its start on, and after an import what follows from it."""
    names = chain(run)[start_of(run) :]
    if run.init is None:
        return names
    reached = [stand_in(run)]
    for stage in names:  # a branch may hang on a stage that is not there
        if previous(run, stage) in reached:
            reached.append(stage)
    return reached[1:]


def importer(runs: Mapping[str, Run], name: str) -> str | None:
    """The run whose imported model run `name` goes back to: itself, a parent, or None."""
    run = runs[name]
    while run.init is None and start_of(run) > 0:
        name = run.extends
        run = runs[name]
    return name if run.init is not None else None


def stages(runs: Mapping[str, Run], name: str) -> list[str]:
    """Every stage that is trained for run `name`, by itself or a parent, in order.

    Those of its chain, without the ones before an imported model.
    """
    origin, trained, held = importer(runs, name), set(own_stages(runs[name])), name
    if origin is None:
        return chain(runs[name])
    while held != origin:
        held = runs[held].extends
        trained |= set(own_stages(runs[held]))
    return [stage for stage in chain(runs[name]) if stage in trained]


def owner(runs: Mapping[str, Run], name: str, stage: str) -> str:
    """The run whose results hold the model of `stage`: `name` itself, or the parent it extends.

    It was trained there, or imported in its place; of an average, its phase. Raises UserError for
    a stage before that.
    """
    holder, run = name, runs[name]
    stage = trained(run, stage)
    while stage not in own_stages(run):
        if run.init is not None:
            if stage == stand_in(run):
                break
            raise nothing_before(runs, name, stage)
        holder = run.extends
        run = runs[holder]
    return holder


def is_imported(runs: Mapping[str, Run], name: str, stage: str) -> bool:
    """Whether an imported model stands in the place of `stage` of run `name`."""
    origin = importer(runs, name)
    return origin is not None and stage == stand_in(runs[origin])


def nothing_before(runs: Mapping[str, Run], name: str, stage: str) -> UserError:
    """The error for a stage that an imported model has made superfluous."""
    origin = importer(runs, name)
    run, whose = runs[origin], "" if origin == name else f" of {origin}"
    place = f" in the place of {stand_in(run)}" if stand_in(run) else ""
    after = own_stages(run)
    return UserError(
        f"there is no {stage} in {name}: it begins with the imported model{whose}"
        f" ({run.init.import_}){place}" + (f", and then {after[0]}" if after else "")
    )


def settings_of(run: Run, stage: str) -> dict[str, Any]:
    """Everything in a run's file that a stage of its chain depends on, names of data included."""
    section, _, name = stage.partition(".")
    if section == "sft":
        return {**plain(run.sft, "options"), "after": phases(run)[-1]}
    whole, entries = (run.pretrain, "phases") if section == "pretrain" else (run.rl, "steps")
    own = plain(getattr(whole, entries)[name], "options")
    without = [entries] if own.get("init") == "merged" else [entries, "merge"]
    return {**plain(whole, *without), entries: {name: own}}
