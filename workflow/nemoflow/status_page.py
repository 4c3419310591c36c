"""The status of a checkout on one screen."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from nemoflow.progress import clock
from nemoflow.status import RunStatus, Status, Work

STATES = {"absent": "–"}
HEADER = ("", "state", "step", "", "tokens/s", "left", "time", "GPU-h", "resumed", "")
SUMMED = {"export": "exports", "eval_task": "scores"}  # one line for all that just stand there
QUIET = ("done", "absent")


def lines(told: Status) -> Iterator[str]:
    """Controllers, runs, what failed and why."""
    for controller in told.controllers:
        yield f"controller  {controller}"
    if not told.controllers:
        yield "no controller is at work" + ("" if told.slurm else " (and no Slurm here)")
    for run in told.runs:
        yield ""
        yield from run_lines(run)
    if told.shared:
        yield ""
        yield "data and other jobs"
        yield from table([row(work) for work in told.shared])
    if not told.runs and not told.shared:
        yield "nothing is built yet; python -m nemoflow runs lists what there is to build"
    works = [*(work for run in told.runs for work in run.works), *told.shared]
    for work in works:
        if work.failure:
            yield ""
            yield from failure(work)


def run_lines(run: RunStatus) -> Iterator[str]:
    """A run as a table."""
    hours = f"  {run.gpu_hours:,.1f} GPU-hours so far" if run.gpu_hours else ""
    if run.problem:
        yield f"{run.name}  {run.problem}"
        return
    yield f"{run.name}{hours}"
    yield from table([HEADER, *rows(run.works)])


def rows(works: Iterable[Work]) -> Iterator[tuple[str, ...]]:
    """A row for each job, but one for all exports, and one for all scores, that need no notice."""
    works = list(works)
    summed = set()
    for work in works:
        if work.rule not in SUMMED or work.state not in QUIET or work.failure:
            yield row(work)
        elif work.rule not in summed:
            summed.add(work.rule)
            counts = Counter(other.state == "done" for other in works if other.rule == work.rule)
            state = "done" if not counts[False] else f"{counts[True]} of {counts.total()}"
            yield (SUMMED[work.rule], state, *[""] * (len(HEADER) - 2))


def row(work: Work) -> tuple[str, ...]:
    """The columns of a job."""
    known = work.figures
    step = f"{known.step:,}" if known.step is not None else ""
    if known.total and step:
        step += f"/{known.total:,}"
    value = f"loss {known.loss:.3f}" if known.loss is not None else ""
    if known.reward is not None:
        value = f"reward {known.reward:.3f}"
    at_work = work.state == "runs"
    note = " ".join(filter(None, [f"Slurm {work.job}:" if work.job else "", work.note]))
    if at_work and known.total and known.step is None:
        note = f"starting; {note}"
    return (
        work.title,
        "can never start" if work.state == "stuck" else STATES.get(work.state, work.state),
        step,
        value,
        f"{known.tokens_per_second:,.0f}" if known.tokens_per_second and at_work else "",
        clock(known.left) if known.left is not None and at_work else "",
        clock(known.seconds) if known.seconds else "",
        f"{known.gpu_hours:,.1f}" if known.gpu_hours else "",
        f"{known.attempts - 1}×" if known.attempts > 1 else "",
        note,
    )


def table(cells: list[tuple[str, ...]]) -> Iterator[str]:
    """Aligned columns, empty ones left out; numbers stand on the right."""
    used = [i for i in range(len(HEADER)) if any(line[i] for line in cells if line is not HEADER)]
    widths = {i: max(len(line[i]) for line in cells) for i in used}
    for line in cells:
        parts = (
            line[i].rjust(widths[i]) if 2 <= i <= 8 else line[i].ljust(widths[i]) for i in used
        )
        yield f"  {'  '.join(parts)}".rstrip()


def failure(work: Work) -> Iterator[str]:
    """Why a job failed, with the end of its log."""
    stands = "; the former build stands" if work.state == "done" else ""
    yield f"failed: {work.title}: {work.failure}{stands}"
    if work.log:
        near = Path(work.log)
        shown = near.relative_to(Path.cwd()) if near.is_relative_to(Path.cwd()) else near
        yield f"  {shown}"
    yield from (f"  | {line}" for line in work.last_words)


def watched(ask, seconds: float | None) -> Iterator[str]:
    """The page once, or again and again on a cleared screen."""
    while True:
        page = "\n".join(lines(ask()))
        if not seconds:
            yield page
            return
        yield f"\x1b[2J\x1b[H{time.strftime('%H:%M:%S')}\n{page}"
        time.sleep(seconds)
