"""Before anything is submitted: the GPU jobs of a run, what they cost, and what is wrong with them.

`python -m nemoflow check` asks for all jobs of a run; a controller for those of its DAG, with the
resources that they really get.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemoflow import bridge, cost, graph, launch, specs, world
from nemoflow.config import Config
from nemoflow.engines.nemo_rl import fits
from nemoflow.errors import UserError
from nemoflow.files import read_json
from nemoflow.machine import Machine
from nemoflow.profile import Hardware, Profile, machine_of
from nemoflow.progress import in_bytes, say
from nemoflow.world import Problem, Stage

NONE = Machine()
RULES = {"pretrain": "phase", "sft": None, "rl": "step", "export": "stage", "eval_task": "task"}


@dataclass(frozen=True)
class Job:
    """A job of a GPU rule; `stage` is what it trains, exports or scores."""

    rule: str
    run: str
    wildcards: Mapping[str, str]
    stage: Stage

    @property
    def title(self) -> str:
        """The job in words: rl.swe1, export sft, eval_task sft mmlu."""
        if self.trains:
            return self.stage.name
        rest = (self.wildcards[name] for name in ("stage", "task") if name in self.wildcards)
        return " ".join((self.rule, *rest))

    @property
    def trains(self) -> bool:
        """Whether this job trains a stage."""
        return self.rule in ("pretrain", "sft", "rl")

    @property
    def machine(self) -> Machine:
        """What the job gets."""
        return self.stage.machine


def job(
    config: Config, rule: str, wildcards: Mapping[str, str], machine: Machine = NONE,
    hardware: Hardware | None = None,
) -> Job:  # fmt: skip
    """The job that a rule and its wildcards name."""
    name = wildcards["run"]
    run = config.run(name)
    if "stage" in wildcards:
        stage = graph.trained(run, graph.full_name(run, wildcards["stage"]))
    else:
        stage = ".".join((rule, *(wildcards[key] for key in (RULES[rule],) if key)))
    return Job(rule, name, wildcards, Stage(stage, run, machine, hardware))


def planned(config: Config, rule: str, wildcards: Mapping[str, str], profile: Profile) -> Job:
    """The job that a rule and its wildcards name, with what a profile gives it."""
    return job(config, rule, wildcards, profile.machine(rule, wildcards), profile.hardware)


def jobs(config: Config, name: str, profile: Profile) -> list[Job]:
    """The GPU jobs of a run's own stages, by the cluster's engines, with a profile's machines."""
    run, asked = config.run(name), []
    for stage in graph.own_stages(run):
        section, _, part = stage.partition(".")
        asked.append((section, {RULES[section]: part} if part else {}))
    asked += [("export", {"stage": stage}) for stage in exported(config, name)]
    asked += [
        ("eval_task", {"stage": stage, "task": task})
        for stage in run.eval.stages
        for task in run.eval.tasks
    ]
    made = [planned(config, rule, {"run": name, **named}, profile) for rule, named in asked]
    return [each for each in made if is_cluster(each)]


def exported(config: Config, name: str) -> list[str]:
    """The stages that a run exports: those evaluated, and what each RL step starts from."""
    run = config.run(name)
    before = [graph.previous(run, s) for s in graph.own_stages(run) if s.startswith("rl.")]
    short = [graph.short_name(run, stage) for stage in before]
    return list(dict.fromkeys((*run.eval.stages, *short)))


def is_cluster(found: Job) -> bool:
    """Whether a job's heavy work is that of a cluster's engine."""
    return (
        found.rule != "eval_task"
        and found.stage.settings.engine != "local"
        or (found.rule == "eval_task" and found.stage.run.eval.backend == "vllm")
    )


def problems(config: Config, found: Collection[Job]) -> dict[str, list[str]]:
    """{title: what does not fit about the job: file, key, what to do}.

    Our own checks of every job first; Megatron-Bridge's, where it can be asked, of those that pass.
    """
    wrong = {each.title: list(own_problems(config, each)) for each in found}
    asked = [each for each in found if by_bridge(each) and not wrong[each.title]]
    if asked and (python := bridge.python()):
        answers = bridge.problems([item(config, each) for each in asked], python)
        for title, answer in answers.items():
            wrong[title] = [Problem(told["key"], told["message"]) for told in answer]
    return {
        each.title: [placed(config, each, problem) for problem in wrong[each.title]]
        for each in found
    }


def own_problems(config: Config, found: Job) -> Iterator[Problem]:
    """What does not fit as far as we know ourselves."""
    stage = found.stage
    if not found.trains:
        yield from world.weights(stage, found.rule)
        return
    yield from world.problems(stage)
    if stage.settings.engine == "nemo_rl" and found.machine.gpus:
        spec = specs.of(config, found.rule, dict(found.wildcards))
        for key, text in fits.problems(spec.identity, spec.options, found.machine):
            yield Problem(f"{stage.key}.{key}", text)


def placed(config: Config, found: Job, problem: Problem) -> str:
    """A problem with the place of its key."""
    place = config.place("runs", found.run, *problem.key.split("."))
    return f"{place}: {problem.key}: {problem.text}"


def by_bridge(found: Job) -> bool:
    """Whether Megatron-Bridge trains in a job."""
    return found.trains and found.stage.settings.engine == "megatron"


def item(config: Config, found: Job) -> dict[str, Any]:
    """A job as nemoflow.engines.megatron.validate takes it."""
    return {
        "key": found.title,
        "task": found.rule,
        "config": specs.of(config, found.rule, dict(found.wildcards)).identity,
        "machine": asdict(found.machine),
        "gpu": found.stage.hardware.gpu if found.stage.hardware else None,
    }


def estimate(config: Config, found: Job) -> cost.Estimate:
    """What a job will take."""
    stage, entry = found.stage, found.stage.entry
    model, settings, machine = stage.run.pretrain.model, stage.settings, found.machine
    if not found.trains:
        return cost.fixed(model, found.rule, machine, stage.hardware)
    if stage.section == "rl":
        rows, length, assumed = prompts(config, entry.prompts, entry.max_sequence)
        return cost.rollouts(
            model, entry, settings.precision, rows, length, machine, stage.hardware, assumed
        )
    first, stop = 0, world.iterations(stage)
    if stage.section == "pretrain":
        first = graph.first_iteration(stage.run, found.wildcards["phase"])
    tokens = (stop - first) * entry.batch.global_size * entry.batch.sequence
    context = entry.batch.sequence
    if stage.section == "sft":
        context = min(context, cost.CONVERSATION)
    size = cost.stored(model, bool(getattr(entry, "lora", None)))
    room = cost.disk(size, entry.options, first, stop)
    return cost.training(
        model, stage.section, settings.precision, tokens, context, machine, room, stage.hardware
    )


def prompts(config: Config, name: str, longest: int) -> tuple[int, float, bool]:
    """Rows of a set of prompts, mean length of a rollout, and whether the rows are assumed."""
    built, model = Path(f"results/data/prompts/{name}.json"), config.data("prompts", name)
    expected = model.expected
    length = expected.tokens if expected else longest / 4
    if built.exists():
        return read_json(built)["train"], length, False
    counted = sum(source.count or 0 for source in model.sources)
    return (expected.rows if expected else counted), length, True


def refuse(wrong: Iterable[str]) -> None:
    """Stop with everything that is wrong.

    Raises:
        UserError: something is.
    """
    if told := list(dict.fromkeys(wrong)):
        raise UserError("\n".join(told))


def check(
    config: Config,
    given: Iterable[tuple[str, Mapping[str, str], Mapping[str, Any], int]],
    hardware: Hardware | None,
    made: Collection[str],
) -> None:
    """Whether jobs of a DAG fit what they get: rule, wildcards, resources and threads of each.

    `made` are the files that the DAG makes: what they say now does not count.

    Raises:
        UserError: everything that does not fit, or is not there.
    """
    found, wrong = [], []
    for rule, wildcards, resources, threads in given:
        place = f"resources of rule {rule} ({', '.join(wildcards.values())})"
        each = job(config, rule, wildcards, machine_of(resources, threads, place), hardware)
        if is_cluster(each):
            found.append(each)
    for texts in problems(config, found).values():
        wrong += texts
    for each in found:
        wrong += [*absent(config, each, made), *unstartable(config, each)]
    refuse(wrong)
    warn_of_disk(config, found)


def absent(config: Config, found: Job, made: Collection[str]) -> Iterator[str]:
    """Bytes that a training job reads and that are not all there, and a place it cannot write to.

    A folder that is not there at all is the job's own affair: it pulls it, or says why not.
    """
    results = Path("results")
    if results.exists() and not os.access(results, os.W_OK):
        yield f"{results}: not writable for this user: nothing could be saved there"
    if found.rule == "pretrain":
        blend = f"results/{found.run}/pretrain/{found.wildcards['phase']}/blend.json"
        if blend not in made and Path(blend).exists():
            yield from absent_shards(blend)
    elif found.rule == "sft":
        packed = Path(f"results/data/packed/{found.stage.entry.mixture}")
        listed = f"{packed}.json" not in made and packed.exists()
        if listed and not any((packed / "train").glob("*.parquet")):
            yield f"{packed}/train: no Parquet file there, but sft.mixture names it; build it again"


def unstartable(config: Config, found: Job) -> Iterator[str]:
    """Why a job's line cannot be built at this site: no image, no srun, no containers."""
    identity = specs.of(config, found.rule, dict(found.wildcards)).identity
    try:
        launch.line(identity, found.rule, Path("job.json"), found.machine)
    except UserError as error:
        yield str(error)


def absent_shards(blend: str) -> Iterator[str]:
    """The shards that a blend lists in folders that are there, and that are not."""
    for prefixes in read_json(blend).values():
        for prefix in prefixes[1::2]:
            for path in (Path(f"{prefix}.bin"), Path(f"{prefix}.idx")):
                if path.parent.exists() and not path.exists():
                    yield f"{blend}: lists {prefix}, but there is no {path}; build the blend again"


def warn_of_disk(config: Config, found: Iterable[Job]) -> None:
    """Say when the checkpoints of these jobs will not fit on the disk."""
    stays = [estimate(config, each) for each in found]
    if not stays:
        return
    need = sum(each.kept for each in stays) + max(each.needed - each.kept for each in stays)
    free = shutil.disk_usage("results" if Path("results").exists() else ".").free
    if need > free:
        say(
            f"warning: these jobs keep about {in_bytes(need)} of checkpoints, results/ has"
            f" {in_bytes(free)} free"
        )
