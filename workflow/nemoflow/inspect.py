"""What the commands of `python -m nemoflow` answer about config, as lines of text."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from nemoflow import forecast, graph, import_paths, imports, preflight, profile, source_check
from nemoflow.config import Config, derived, layers
from nemoflow.config.base import NAME, plain
from nemoflow.config.checks import difference
from nemoflow.config.load import Runs
from nemoflow.config.messages import nearest
from nemoflow.config.run import Run
from nemoflow.errors import UserError
from nemoflow.files import write_whole
from nemoflow.products import PATHS


def shown(value: Any) -> str:
    """A value as YAML on one line."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else json.dumps(value)


def under(values: Any, key: tuple[str, ...]) -> Any:
    """The value at a key.

    Raises:
        KeyError: there is none.
    """
    for name in key:
        if not isinstance(values, dict):
            raise KeyError(name)
        values = values[name]
    return values


def found(config: Config, run: str, dotted: str) -> Any:
    """The value of a dotted key of a run.

    Raises:
        UserError: the run has no such key; names what stands there.
    """
    values: Any = plain(config.run(run))
    key = tuple(dotted.split("."))
    for i in range(len(key)):
        around = under(values, key[:i])
        if not isinstance(around, dict) or key[i] not in around:
            known = list(around) if isinstance(around, dict) else []
            place = ".".join(key[:i]) or run
            raise UserError(f"{run}: in {place} {nearest('key', key[i], known)}")
    return under(values, key)


def runs(config: Config) -> Iterator[str]:
    """Every run, what it extends, and what it is."""
    width = max(map(len, config.run_names()), default=0)
    for name in config.run_names():
        try:
            run = config.run(name)
        except UserError as error:
            yield f"{name:<{width}}  broken: {str(error).splitlines()[0]}"
            continue
        parent = f"extends {run.extends}" if run.extends else ""
        start = f" from {run.start}" if run.start else ""
        imported = f" imports {run.init.import_}" if run.init else ""
        yield f"{name:<{width}}  {run.about or (parent + start + imported).strip()}"


def show(config: Config, run: str, key: str | None) -> list[str]:
    """A run as one YAML document."""
    values = found(config, run, key) if key else plain(config.run(run))
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return text.removesuffix("...\n").rstrip().splitlines()


def explain(config: Config, run: str, dotted: str) -> Iterator[str]:
    """The value of a key, the place that set it, and the values it had further up."""
    value = found(config, run, dotted)
    key = tuple(dotted.split("."))
    place = config.layered("runs", run).origin.get(key)
    if isinstance(value, dict):
        yield f"{dotted} is a mapping:"
        for name in value:
            yield from explain(config, run, f"{dotted}.{name}")
        return
    yield f"{dotted} = {shown(value)}    {place or 'default of the model'}"
    for parent, layer in config.lineage(run):
        for tried in dict.fromkeys((key, inherited(key))):
            try:
                before = under(layer.value, tried)
            except KeyError:
                continue
            at = layer.place(tried)
            if at != place:
                yield f"    {parent} says {shown(before)}    {at}"


def inherited(key: tuple[str, ...]) -> tuple[str, ...]:
    """The section's key that a phase or step inherits: pretrain.phases.X.batch → pretrain.batch."""
    if len(key) > 3 and key[:2] in (("pretrain", "phases"), ("rl", "steps")):
        return (key[0], *key[3:])
    return key


def diff(config: Config, run: str, other: str) -> Iterator[str]:
    """The keys in which two runs differ, with both values."""
    ours, theirs = plain(config.run(run)), plain(config.run(other))
    for key in difference(ours, theirs):
        pair = []
        for values in (ours, theirs):
            try:
                pair.append(shown(under(values, key)))
            except KeyError:
                pair.append("–")
        yield f"{'.'.join(key)}: {pair[0]} | {pair[1]}"


def new(config: Config, name: str, parent: str, keys: list[str]) -> list[str]:
    """Write `config/{name}.yaml`, `start` included, once it is a valid run.

    Raises:
        UserError: the run exists, or its name or a key is wrong; nothing is written.
    """
    if not re.fullmatch(NAME, name) or name == "data":
        raise UserError(f"{name}: a run's name has a-z, 0-9, _ and - only, and is not data")
    path = config.folder / f"{name}.yaml"
    if name in config.run_names():
        raise UserError(f"{path}: exists already; choose another name, or edit it")
    values: dict[str, Any] = {}
    for key, value, _ in (assignment for text in keys for assignment in layers.overrides(text)):
        upper: Any = value
        for part in reversed(key):
            upper = {part: upper}
        values = layers.merge(values, upper)
    config.run(parent)
    draft = config.with_draft(name, {"extends": parent, **values})
    start = values.get("start") if "init" in values else first_change(draft, name)
    header = {"extends": parent, **({"start": start} if start else {})}
    run = config.with_draft(name, {**header, **values}).run(name)
    text = yaml.safe_dump({**header, **values}, sort_keys=False, allow_unicode=True, width=100)
    write_whole(path, text)
    return [
        f"wrote {path}: it owns {owned(run)}",
        f"next: snakemake --profile profiles/local -n results/{name}/eval.json",
    ]


def owned(run: Run) -> str:
    """The stages that a run owns, in words, and what stands before them."""
    if run.init is not None:
        place = f", in the place of {graph.stand_in(run)}" if graph.stand_in(run) else ""
        return f"{run.start} and after; before that stands {run.init.import_}{place}"
    if run.start is None:
        return "every stage"
    return f"{run.start} and after; everything before is {run.extends}'s"


def first_change(config: Config, name: str) -> str | None:
    """The first stage of a run that differs from its parent's; `eval` where none does.

    None for the very first of the chain; stages that the parent's imported model replaces are none.
    """
    after = config.run(name)
    before, chain = config.run(after.extends), graph.chain(after)
    gone = set(graph.chain(before)) - set(graph.stages(Runs(config), after.extends))
    for stage in [stage for stage in chain if stage not in gone]:
        known = stage in graph.chain(before)
        if not known or graph.settings_of(before, stage) != graph.settings_of(after, stage):
            return stage if stage != chain[0] else None
    return "eval"


def check(config: Config, names: list[str], folder: str | None) -> Iterator[str]:
    """Say that runs are sound, and with a profile what their GPU jobs take, or what is wrong.

    Raises:
        UserError: the first run that is not sound; with a profile everything that does not fit.
    """
    profile = checked_profile(folder) if folder else None
    wrong: list[str] = []
    for name in names:
        run = config.run(name)
        if profile is not None:
            yield from forecast_of(config, name, profile, wrong)
        gaps = f"; {len(run.gaps)} gaps of the recipe are stated in it" if run.gaps else ""
        stages = graph.stages(Runs(config), name)
        if origin := graph.importer(Runs(config), name):
            imports.check_early(config, origin, Path(f"results/{origin}/init.json"))
            stages = [f"{config.run(origin).init.import_} (imported)", *stages]
        check_imported_corpora(config, run, stages)
        if not wrong:
            yield f"{name}: {' → '.join(stages)}: sound{gaps}"
            yield from source_check.notes(config, name)
    preflight.refuse(wrong)


def check_imported_corpora(config: Config, run: Run, stages: list[str]) -> None:
    """Raise UserError for a corpus whose shards are to be imported and are not there."""
    tokenizer = run.pretrain.tokenizer
    for phase in [phase for phase in run.pretrain.phases if f"pretrain.{phase}" in stages]:
        for corpus in derived.weights(config, run, phase):
            product = Path(PATHS["corpus"].format(tokenizer=tokenizer, corpus=corpus))
            import_paths.check_early(config, tokenizer, corpus, product)


def checked_profile(folder: str) -> profile.Profile:
    """A profile without mistakes of its own."""
    found = profile.Profile(folder)
    preflight.refuse(found.problems(profile.rules(Path("rules"))))
    return found


def forecast_of(
    config: Config, name: str, machine: profile.Profile, wrong: list[str]
) -> Iterator[str]:
    """The table of a run's GPU jobs; adds to `wrong` what does not fit."""
    jobs = preflight.jobs(config, name, machine)
    if not jobs:
        return
    found = preflight.problems(config, jobs)
    made = forecast.rows(config, jobs, found)
    yield from forecast.table(made, machine)
    yield from forecast.shortfalls(made, machine)
    wrong += [told for title in found for told in found[title]]
    missing = dict.fromkeys(text for job in jobs for text in preflight.unstartable(config, job))
    yield from (f"before the first job of this site: {text}" for text in missing)
