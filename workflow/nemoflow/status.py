"""What the jobs of a checkout are about: queue, locks, journals and products, read together.

Nothing is written, and a file that is half-written or gone counts as unknown.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nemoflow import controller, figures, graph, journal, locks, manifest, products, reasons, squeue
from nemoflow.config import Config
from nemoflow.config.load import Runs
from nemoflow.errors import UserError
from nemoflow.figures import Figures
from nemoflow.names import Names

LAST_WORDS = 5  # lines of a failed job's log


@dataclass
class Work:
    """A product and the job that makes it.

    `state` is done, runs, waits, stuck (can never start), failed, stopped (begun, nobody works on
    it) or absent; `note` says who works, or why nobody does.
    """

    rule: str
    title: str
    path: str
    state: str = "absent"
    note: str = ""
    job: str = ""
    figures: Figures = field(default_factory=Figures)
    failure: str = ""
    log: str = ""
    last_words: list[str] = field(default_factory=list)


@dataclass
class RunStatus:
    """A run: its stages, exports and scores in order; `problem` where its config is broken."""

    name: str
    works: list[Work]
    problem: str = ""

    @property
    def gpu_hours(self) -> float:
        """What the standing products and the work under way have taken."""
        return sum(work.figures.gpu_hours for work in self.works)


@dataclass
class Status:
    """Everything that `status` tells: `shared` is data at work, of any run."""

    controllers: list[str]
    runs: list[RunStatus]
    shared: list[Work]
    slurm: bool


class Survey:
    """Queue and journals, read once for all products."""

    def __init__(self):
        jobs = squeue.jobs()
        self.slurm, self.jobs = jobs is not None, jobs or []
        self.by_comment = {job.comment: job for job in self.jobs if job.rule}
        self.known = journal.read()

    def work(self, rule: str, title: str, path: str, comment: str) -> Work:
        """What is known of a product."""
        work = Work(rule, title, path)
        if rule in ("pretrain", "sft", "rl"):
            work.figures = figures.of_training(Path(path))
        else:
            work.figures = figures.of_product(Path(path))
        job, told = self.by_comment.get(comment), self.known.get(path)
        if job is not None:
            self.in_queue(work, job)
        elif holder := locks.holder(locks.lock_of(path)):
            work.state, work.note = "runs", holder.partition(": ")[0]
        elif Path(path).exists():
            work.state = "done"
        elif manifest.payload(path).with_name("progress").is_dir() and work.figures.attempts:
            work.state, work.note = "stopped", "nobody works on it; the same command goes on"
        if told is not None and told.event == "failed" and job is None and work.state != "runs":
            tell_failure(work, told)
        return work

    def in_queue(self, work: Work, job: squeue.Job) -> None:
        """What Slurm says of a job."""
        work.job = job.number
        if job.waits:
            work.state = "stuck" if reasons.never(job) else "waits"
            work.note = reasons.words(job)
            return
        work.state = "runs"
        gpus = f", {job.gpus} GPUs" if job.gpus else ""
        work.note = (
            f"{job.nodes} node{'s' * (job.nodes != '1')}{gpus}, {job.elapsed} of {job.limit}"
        )
        work.figures.run_on(job)


def tell_failure(work: Work, told: journal.Known) -> None:
    """How the newest attempt failed; a former build that still stands stays done."""
    if work.state != "done":
        work.state = "failed"
    work.failure = told.message or "its command failed"
    written = [log for log in told.logs if newer(Path(log), told.began)]
    work.log = (written or [""])[0]
    work.last_words = last_lines(work.log)


def newer(log: Path, began: float) -> bool:
    """Whether a log holds words of the attempt that began then: one refused by Slurm wrote none."""
    try:
        return log.stat().st_size > 0 and log.stat().st_mtime >= began - 2
    except OSError:
        return False


def last_lines(log: str) -> list[str]:
    """The last lines of a log that say something."""
    text = figures.tail(Path(log)).decode("utf-8", "replace").replace("\r", "\n")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-LAST_WORDS:]


def expected(config: Config, run: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(title, rule, wildcards) of what a run makes itself, in pipeline order."""
    runs, names, wildcards = Runs(config), Names(config), SimpleNamespace(run=run)
    if runs[run].init is not None:
        yield "init", "import_model", {"run": run}
    for stage in models(names, run):
        rule, _, name = stage.partition(".")
        own = {"pretrain": {"phase": name}, "rl": {"step": name}}.get(rule, {})
        if rule == "merged":
            rule, own = "merge", {"phase": runs[run].pretrain.merge.phase, "window": name}
        yield stage, rule, {"run": run, **own}
    steps = [stage for stage in graph.own_stages(runs[run]) if stage.startswith("rl.")]
    starts = [graph.short_name(runs[run], graph.previous(runs[run], step)) for step in steps]
    for stage in dict.fromkeys([*starts, *names.evaluated(wildcards)]):
        if names.exporter(wildcards, stage) == run:
            yield f"export {stage}", "export", {"run": run, "stage": stage}
    scores = zip(names.scored_stages(wildcards), names.scored_tasks(wildcards), strict=True)
    for (stage, task), scorer in zip(scores, names.scorers(wildcards), strict=True):
        if scorer == run:
            yield f"eval {stage} {task}", "eval_task", {"run": run, "stage": stage, "task": task}
    yield "eval.json", "eval", {"run": run}


def models(names: Names, run: str) -> list[str]:
    """The stages of a run's own in order, the averages that are asked for behind their phase."""
    model, wildcards = names.runs[run], SimpleNamespace(run=run)
    asked = {graph.full_name(model, stage) for stage in names.evaluated(wildcards)}
    if any(phase.init == "merged" for phase in model.pretrain.phases.values()):
        asked.add(graph.full_name(model, "merged"))
    averages = [
        stage
        for stage in graph.merged(model)
        if stage in asked and names.merger(wildcards, stage) == run
    ]
    chain = graph.chain(model)
    own = [*graph.own_stages(model), *averages]
    return sorted(own, key=lambda stage: chain.index(graph.trained(model, stage)))


def comment_of(rule: str, wildcards: dict[str, str]) -> str:
    """The comment that the executor gives to a job (`Executor.run_job`)."""
    return f"rule_{rule}_wildcards_{'_'.join(wildcards.values())}"


def run_status(config: Config, survey: Survey, name: str) -> RunStatus:
    """What is known of a run."""
    try:
        planned = list(expected(config, name))
    except UserError as error:
        return RunStatus(name, [], str(error).splitlines()[0])
    works = [
        survey.work(
            rule, title, products.PATHS[rule].format(**wildcards), comment_of(rule, wildcards)
        )
        for title, rule, wildcards in planned
    ]
    return RunStatus(name, works)


def others(survey: Survey, seen: set[str]) -> Iterator[Work]:
    """Jobs of products that are no run's own stages: shared data, reports, seals."""
    told = {job.comment: job for job in survey.jobs if job.rule and job.comment not in seen}
    for path, known in survey.known.items():
        comment = comment_of(known.rule, known.wildcards)
        if comment in seen:
            continue
        title = " ".join([known.rule, *known.wildcards.values()])
        if known.event != "finished" or comment in told:
            work = survey.work(known.rule, title, path, comment)
            if work.state in ("runs", "waits", "stuck", "failed") or work.failure:
                yield work
        told.pop(comment, None)
    for job in told.values():
        work = Work(job.rule, job.title, "")
        survey.in_queue(work, job)
        yield work


def controllers(survey: Survey) -> list[str]:
    """The controllers that live: detached ones by Slurm, attached ones of this host by its list."""
    detached = [
        f"Slurm job {job.number}, {job.state.lower()}"
        + (f": {reasons.words(job)}" if job.waits else f" for {job.elapsed} of {job.limit}")
        + f": {job.target}"
        for job in survey.jobs
        if job.target
    ]
    folder = Path(".snakemake")
    if not (folder / "controllers").exists():
        return detached
    told = tuple(path.read_text() for path in controller.FOLDER.glob("*"))
    attached = [line for line in locks.Controllers(folder).others() if not line.startswith(told)]
    return [*detached, *filter(locks.is_snakemake, attached)]


def gather(config: Config, name: str | None) -> Status:
    """The status of one run, or of all of which there is anything to tell.

    Raises:
        UserError: there is no such run.
    """
    survey = Survey()
    if name is not None:
        config.layered("runs", name)
    found = [run_status(config, survey, run) for run in ([name] if name else config.run_names())]
    seen = {
        comment_of(rule, wildcards)
        for run in found
        if not run.problem
        for _, rule, wildcards in expected(config, run.name)
    }
    told = [run for run in found if name or any(work.state != "absent" for work in run.works)]
    shared = [work for work in others(survey, seen) if not name or concerns(work, name)]
    return Status(controllers(survey), told, shared, survey.slurm)


def concerns(work: Work, run: str) -> bool:
    """Whether a job may be of a run: its own, or one of shared data."""
    return not work.path or work.path.split("/")[1] in (run, "data")


def document(status: Status) -> dict[str, Any]:
    """The same as plain values."""
    told = asdict(status)
    for run, one in zip(told["runs"], status.runs, strict=True):
        run["gpu_hours"] = round(one.gpu_hours, 3)
    return told
