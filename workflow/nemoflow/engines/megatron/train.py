"""Pretraining and fine-tuning: Megatron-Bridge's loop between our beginning and our end."""

import inspect
from pathlib import Path
from typing import Any

from megatron.bridge.training.finetune import finetune
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain

from nemoflow import checkpoint, divergence, iterations, metrics, ranks, spec
from nemoflow.engines.megatron import recipe
from nemoflow.engines.megatron.callbacks import Callbacks
from nemoflow.errors import UserError
from nemoflow.launch import INTERRUPTED, STOPPED
from nemoflow.progress import say
from nemoflow.torch_dist import iteration_folder


def train(job: dict[str, Any]) -> int:
    """Train a job of task pretrain or sft to its last step; the process's exit code.

    Goes on from the newest whole checkpoint in `progress`, else as `init` says. Saves and returns
    INTERRUPTED before the time limit and at SIGTERM; STOPPED when the loss left all bounds. A job
    that had trained all its steps is left as it is.

    Raises:
        UserError: training had stopped itself before; there is nothing left to train; or
            Megatron-Bridge takes no callbacks.
    """
    progress, stop = Path(job["progress"]), spec.last_step(job["config"])
    if checkpoint.final(progress):
        return 0
    divergence.refuse_stopped(progress, job["title"])
    newest = checkpoint.newest(progress)
    if newest is None or checkpoint.step_of(newest) < stop:
        check_beginning(job, newest, stop)
        callbacks = Callbacks(job, stop)
        if code := run(job, callbacks):
            return code
        tokens = callbacks.tokens
    else:  # it ended between its last checkpoint and leaving it as the result
        tokens = metrics.read(progress / "metrics.jsonl")[-1]["tokens"]
    if ranks.place()[0] == 0:
        leave(job, progress, stop, tokens)
    return 0


def check_beginning(job: dict[str, Any], newest: Path | None, stop: int) -> None:
    """Raise UserError where a phase would continue at or behind its own end (no step would run)."""
    source = job["inputs"].get("init")
    if newest or job["config"].get("init") != "continue":
        return
    folder = iteration_folder(Path(source))
    if folder is None:
        raise UserError(f"{source}: no Megatron checkpoint to continue; set init: weights")
    if checkpoint.step_of(folder) >= stop:
        raise UserError(
            f"{job['title']}: continues at step {checkpoint.step_of(folder)} of {source}, but"
            f" should stop at {stop}; set a later stop_iteration, or init: weights to count from 0"
        )


def run(job: dict[str, Any], callbacks: Callbacks) -> int:
    """Let Megatron-Bridge train; 0 when the last step is done, else the exit code."""
    start = finetune if job["task"] == "sft" else pretrain
    if "callbacks" not in inspect.signature(pretrain).parameters:
        raise UserError(
            f"{recipe.release()} takes no callbacks, so nothing could be measured or stopped; use"
            " release 0.3 or later, or branch super-v3"
        )
    config = recipe.build(job)
    direct(config)
    try:
        start(config, forward_step, callbacks=[callbacks])
    except divergence.Diverged as diverged:
        if callbacks.tells:
            divergence.stop(callbacks.progress, job["title"], callbacks.step, diverged)
        return STOPPED
    except SystemExit as ended:  # how Megatron-Bridge ends at a signal, after saving
        if ended.code or callbacks.step >= callbacks.stop:
            raise
        if callbacks.first:
            newest = checkpoint.newest(callbacks.progress)
            say(
                f"{job['title']}: {callbacks.saving.reason}: ended after step {callbacks.step} of"
                f" {callbacks.stop}; the same command goes on from {newest or 'the start'}"
            )
        return INTERRUPTED
    finally:
        callbacks.close()
    return 0


def direct(config: Any) -> None:
    """What our callbacks do in place of Megatron-Bridge.

    They see a loss that is not finite: its own checks would end the process with a code that asks
    for a retry. They know how long a checkpoint takes, and stop that much before the time limit.
    """
    config.rerun_state_machine.check_for_nan_in_loss = False
    config.ddp.check_for_nan_in_grad = False
    config.train.exit_signal_handler = True
    config.train.exit_duration_in_mins = None


def leave(job: dict[str, Any], progress: Path, step: int, tokens: int) -> None:
    """Leave the last checkpoint as the job's result.

    Raises:
        UserError: Megatron-Bridge ended without having saved it.
    """
    if not iterations.whole(progress / iterations.FOLDER / f"iter_{step:07d}"):
        iterations.rescue(progress)
    last = progress / iterations.FOLDER / f"iter_{step:07d}"
    if not (iterations.whole(last) or (progress / f"step_{step:07d}").exists()):
        raise UserError(
            f"{job['title']}: Megatron-Bridge ended without the checkpoint of step {step} in"
            f" {progress / iterations.FOLDER}; the same command goes on from the newest there"
        )
    model = job["config"]["model"]
    state = {"task": job["task"], "step": step, "tokens": tokens, "model": model}
    checkpoint.settle(progress, step, state)
