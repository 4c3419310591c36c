"""Averages of checkpoints fit the phase that keeps them and the phase that goes on from them."""

from collections.abc import Callable, Mapping

from nemoflow import graph
from nemoflow.checkpoint import window_steps
from nemoflow.config.run import Run

Fail = Callable[..., None]


def evaluated(runs: Mapping[str, Run], name: str) -> Run:
    """The run `name`, with its average evaluated wherever the last checkpoint of its phase is."""
    run, merge = runs[name], runs[name].pretrain.merge
    full = [graph.full_name(run, stage) for stage in run.eval.stages]
    phase = f"pretrain.{merge.phase}" if merge else None
    if phase not in full or phase not in graph.stages(runs, name) or graph.merged(run)[-1] in full:
        return run
    stages = list(run.eval.stages)
    stages.insert(full.index(phase) + 1, "merged")
    return run.model_copy(update={"eval": run.eval.model_copy(update={"stages": stages})})


def check(run: Run, stages: list[str], fail: Fail) -> None:
    """What pretrain.merge and `init: merged` say; `fail(text, *key)` raises UserError."""
    merge = run.pretrain.merge
    for phase, entry in run.pretrain.phases.items():
        if entry.init == "merged" and (merge is None or merge.phase != entry.after):
            fail(
                f"{entry.after} has no average to begin with; set pretrain.merge with"
                f" phase: {entry.after}, or init: weights",
                "pretrain", "phases", phase, "init",
            )  # fmt: skip
    if merge is None:
        return
    if merge.phase not in run.pretrain.phases:
        known = ", ".join(run.pretrain.phases)
        fail(f"there is no phase {merge.phase}; known: {known}", "pretrain", "merge", "phase")
    for stage in run.eval.stages:
        if stage.partition(".")[0] == "merged" and f"pretrain.{merge.phase}" not in stages:
            fail(f"{stage}: {merge.phase} is not trained for this run", "eval", "stages")
    check_windows(run, fail)


def check_windows(run: Run, fail: Fail) -> None:
    """The phase keeps a checkpoint, beside its last, of every window."""
    merge, entry = run.pretrain.merge, run.pretrain.phases[run.pretrain.merge.phase]
    key, kept = ("pretrain", "phases", merge.phase, "options", "window"), entry.options.window
    if kept is None:
        longest = max(merge.windows.values())
        fail(
            f"not set, so no checkpoints are kept for pretrain.merge to average; set"
            f" {{iterations: {longest}, every: {entry.options.save_every}}}",
            *key,
        )
    steps = entry.stop_iteration - graph.first_iteration(run, merge.phase)
    for name, iterations in merge.windows.items():
        at = ("pretrain", "merge", "windows", name)
        if iterations > kept.iterations:
            fail(f"longer than the window that is kept ({'.'.join(key)}.iterations)", *at)
        if iterations > steps:
            fail(f"longer than {merge.phase}, which trains {steps} iterations", *at)
        window = {"iterations": iterations, "every": kept.every}
        if not window_steps(window, entry.stop_iteration):
            fail(
                f"no checkpoint lies in the last {iterations} iterations before the last one;"
                f" {'.'.join(key)}.every is {kept.every}",
                *at,
            )
