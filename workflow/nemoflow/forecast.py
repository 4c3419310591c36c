"""The table of a run's GPU jobs: nodes, sizes, tokens, GPU-hours, disk, verdict."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tqdm import tqdm

from nemoflow import bridge, cost, preflight
from nemoflow.config import Config
from nemoflow.cost import Estimate
from nemoflow.preflight import Job
from nemoflow.profile import Hardware, Profile
from nemoflow.progress import in_bytes
from nemoflow.world import bytes_per_gpu, cut_of

HEAD = ("job", "nodes × GPUs", "cut", "tokens", "days", "GPU-hours", "disk", "verdict")
WIDTHS = (27, 20, 24, 7, 6, 10, 7)
TIGHT = 0.8  # share of a GPU's memory that activations must share with little


@dataclass(frozen=True)
class Row:
    """A line of the table; a rule's equal jobs, as the tasks of an evaluation, share one."""

    first: Job
    count: int
    each: Estimate
    wrong: bool

    @property
    def gpu_hours(self) -> float:
        """Of all the row's jobs."""
        return self.count * (self.each.gpu_hours or 0)

    @property
    def cells(self) -> tuple[str, ...]:
        """The row in words."""
        job, each = self.first, self.each
        title = job.title if self.count == 1 else f"{job.rule} ({self.count} jobs)"
        about = "~" if each.assumed else ""
        days = each.hours and about + quantity(each.hours / 24)
        return (
            title,
            nodes_of(job),
            cut_of(job.stage) if job.trains else "–",
            "–" if each.tokens is None else about + count_of(each.tokens),
            days or "–",
            f"{about}{self.gpu_hours:,.0f}" if each.gpu_hours else "–",
            in_bytes(self.count * each.kept) if each.kept else "–",
            "does not fit" if self.wrong else verdict(job),
        )


def count_of(number: float) -> str:
    """A number of tokens for people: 20.0T."""
    return tqdm.format_sizeof(number, divisor=1000).replace("G", "B")


def quantity(number: float) -> str:
    """A number with two or three digits."""
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def nodes_of(job: Job) -> str:
    """`109 × 8 (32+72+5)`: the nodes that train, generate and serve, where they differ."""
    machine, parts = job.machine, ""
    if machine.generate_nodes or machine.environment_nodes:
        split = (machine.train_nodes, machine.generate_nodes, machine.environment_nodes)
        parts = f" ({'+'.join(map(str, split))})"
    return f"{machine.nodes} × {machine.gpus}{parts}"


def verdict(job: Job) -> str:
    """`fits`, with the share of memory where activations get little."""
    hardware = job.stage.hardware
    if not job.trains or hardware is None:
        return "fits"
    share = bytes_per_gpu(job.stage) / (hardware.memory_gb * 1e9)
    return f"tight: {share:.0%} of memory" if share > TIGHT else "fits"


def rows(config: Config, found: Iterable[Job], wrong: Mapping[str, list[str]]) -> list[Row]:
    """One row per job, exports and evaluations each in one."""
    groups: dict[str, list[Job]] = {}
    for job in found:
        groups.setdefault(job.title if job.trains else job.rule, []).append(job)
    return [
        Row(
            first=jobs[0],
            count=len(jobs),
            each=preflight.estimate(config, jobs[0]),
            wrong=any(wrong[job.title] for job in jobs),
        )
        for jobs in groups.values()
    ]


def table(made: list[Row], profile: Profile) -> Iterator[str]:
    """The rows, their sums, and in one line what the estimates assume."""
    yield line(HEAD)
    yield from (line(row.cells) for row in made)
    hours, kept = (
        sum(row.gpu_hours for row in made),
        sum(row.count * row.each.kept for row in made),
    )
    peak = max(row.each.needed for row in made)
    yield line(("in all", "", "", "", "", f"{hours:,.0f}" if hours else "–", in_bytes(kept), ""))
    yield f"A job that trains needs up to {in_bytes(peak)} for the checkpoints it keeps meanwhile."
    if hardware := profile.hardware:
        yield assumptions(made, hardware)
    else:
        yield f"No hours: {profile.folder} has no machine.yaml that says what its GPUs do."
    if any(preflight.by_bridge(row.first) for row in made) and bridge.python() is None:
        yield (
            "Megatron-Bridge's own check was not run: build its environment (envs/megatron.sh), or"
            f" set {bridge.PYTHON}."
        )


def line(cells: Iterable[str]) -> str:
    """A line of the table, numbers to the right."""
    *padded, last = cells
    pairs = zip(padded, WIDTHS, strict=True)
    told = [f"{cell:<{w}}" if i < 3 else f"{cell:>{w}}" for i, (cell, w) in enumerate(pairs)]
    return " ".join([*told, f" {last}"]).rstrip()


def assumptions(made: Iterable[Row], hardware: Hardware) -> str:
    """What the hours rest on: of peak, the shares that the profile assumes."""
    used = dict.fromkeys(
        (row.first.stage.section, row.first.stage.settings.precision)
        for row in made
        if row.first.trains
    )
    if any(section == "rl" for section, _ in used):
        used["generate", next(p for s, p in used if s == "rl")] = None
    told = [
        f"{section} {precision} {rate:.2g}"
        for section, precision in used
        if (rate := cost.share(hardware, section, precision)) is not None
    ]
    return (
        f"Assumed of {hardware.gpu}, shares of its peak: {', '.join(told)}; ~ as config/prompts"
        " expects."
    )


def costs(
    config: Config, jobs: Iterable[tuple[str, Mapping[str, str]]], folder: str
) -> Iterator[str]:
    """One line on what the cluster's jobs among a plan's (rule, wildcards) take in all."""
    asked = [(rule, wildcards) for rule, wildcards in jobs if rule in preflight.RULES]
    asked = [pair for pair in asked if preflight.is_cluster(preflight.job(config, *pair))]
    machine = Profile(folder) if asked else None
    found = [preflight.planned(config, *pair, machine) for pair in asked]
    each = [preflight.estimate(config, job) for job in found]
    if not each:
        return
    about = "~" if any(one.assumed for one in each) else ""
    hours = sum(one.gpu_hours or 0 for one in each)
    told = f"{about}{hours:,.0f} GPU-hours" if hours else "GPU-hours unknown"
    kept = in_bytes(sum(one.kept for one in each))
    yield (
        f"{len(each)} jobs of the cluster's engines: {told}, {kept} of disk when done"
        f" (python -m nemoflow check RUN --profile {folder} has the table)"
    )


def shortfalls(made: Iterable[Row], profile: Profile) -> Iterator[str]:
    """Jobs that will need more attempts than the profile gives them; no error."""
    attempts = int(profile.values.get("retries", 0)) + 1
    for row in made:
        given = profile.resources(row.first.rule, row.first.wildcards).get("runtime")
        if not row.each.hours or not isinstance(given, int):
            continue
        jobs = -(-row.each.hours * 60 // given)
        if jobs > attempts:
            yield (
                f"{profile.place('retries')}: {row.first.title} takes about {jobs:.0f} jobs of"
                f" {given / 60:.0f} h, retries allow {attempts}; raise retries, or nodes of rule"
                f" {row.first.rule}, or give the same command again then: it resumes"
            )
