"""The one training loop: resume, steps, metrics, validation, checkpoints, divergence."""

import sys
import time
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file, save_file

from nemoflow import checkpoint
from nemoflow.engines.local import weights
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.model import NemotronH
from nemoflow.engines.local.optimizer import Diverged, Optimizer
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json
from nemoflow.hub import hub_config
from nemoflow.launch import STOPPED
from nemoflow.metrics import Metrics
from nemoflow.progress import Progress
from nemoflow.schedule import learning_rate


class Trainer(Protocol):
    """What the loop needs of a kind of training."""

    network: NemotronH
    optimizer: Optimizer
    stop: int
    validate_every: int | None

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        """Do the update after `step` finished ones; `loss`, `grad_norm`, `tokens` of it, and more.

        What it draws may follow from the job's seed and `step` alone, so that resuming is exact.
        """

    def validate(self) -> dict[str, float]:
        """Losses on held-back data."""


def train(job: Job, trainer: Trainer) -> int:
    """Train from where `progress` stands to the last step; the process's exit code.

    A job that finished before is left as it is. Killed at any moment and started again, it ends in
    the same bytes. Raises UserError when training had stopped itself before.
    """
    if checkpoint.final(job.progress):
        return 0
    refuse_stopped(job)
    step, tokens = resume(job, trainer)
    metrics = Metrics(job.progress / "metrics.jsonl", step)
    progress = Progress(job.title, step, trainer.stop, job.options["status_seconds"])
    began, told = time.monotonic() - metrics.seconds, (time.monotonic(), tokens)
    trainer.network.train()
    while step < trainer.stop:
        rate = learning_rate(job.config["schedule"], step)
        try:
            measured = trainer.train_step(step, rate)
        except Diverged as diverged:
            progress.close()
            return stop(job, step, diverged)
        step, tokens = step + 1, tokens + measured["tokens"]
        last = step == trainer.stop
        if validated := last or (trainer.validate_every and step % trainer.validate_every == 0):
            measured |= trainer.validate()
        now = time.monotonic()
        speed = (tokens - told[1]) / max(now - told[0], 1e-9)
        progress.update(step, measured["loss"], rate, speed)
        if validated or step % job.options["log_every"] == 0:
            timings = {"tokens_per_second": speed, "seconds": now - began}
            metrics.write(step, measured | {"lr": rate, "tokens": tokens} | timings)
            told = (now, tokens)
        if last or step % job.options["save_every"] == 0:
            metrics.sync()
            save(job, trainer, step, tokens)
    progress.close()
    metrics.close()
    checkpoint.finish(job.progress, step)
    return 0


def save(job: Job, trainer: Trainer, step: int, tokens: int) -> None:
    """Write the checkpoint of `step` and remove those that `keep` no longer covers."""
    model = job.config["model"]
    with checkpoint.writing(job.progress, step) as folder:
        named = weights.to_hub(trainer.network.state_dict())
        weights.save_weights(named, hub_config(model), folder)
        save_file(trainer.optimizer.state(), folder / "optimizer.safetensors")
        state = {"task": job.task, "step": step, "tokens": tokens, "model": model}
        state["recent_losses"] = trainer.optimizer.guard.recent
        write_json(folder / "state.json", state)
    checkpoint.prune(job.progress, job.options["keep"])


def load(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Restore weights and optimizer of a checkpoint; its state.json.

    Raises UserError for a folder that has no optimizer: an exported or imported model.
    """
    if not (folder / "optimizer.safetensors").exists():
        raise UserError(f"{folder}: no optimizer there to continue with; set init: weights")
    weights.load_weights(trainer.network, folder)
    trainer.optimizer.load(load_file(folder / "optimizer.safetensors"))
    return read_json(folder / "state.json")


def resume(job: Job, trainer: Trainer) -> tuple[int, int]:
    """Continue the newest checkpoint of `progress`, else begin by `init`; (step, tokens) so far.

    `init` "continue" takes everything of inputs.init but its recent losses, since they tell of
    other data; "weights", the rule for SFT and RL, takes the weights alone.
    """
    init, source = job.config.get("init", "weights"), job.inputs.get("init")
    if newest := checkpoint.newest(job.progress):
        state = load(trainer, newest)
        trainer.optimizer.guard.recent = state["recent_losses"]
    elif init == "continue":
        state = load(trainer, Path(source))
        if state["step"] >= trainer.stop:
            raise UserError(
                f"{job.title}: continues at step {state['step']} of {source}, but should stop at"
                f" {trainer.stop}; set a later stop_iteration, or init: weights to count from 0"
            )
    else:
        if init == "weights":
            weights.load_weights(trainer.network, Path(source))
        state = {"step": 0, "tokens": 0}
    return state["step"], state["tokens"]


def stop(job: Job, step: int, diverged: Diverged) -> int:
    """Leave word that training stopped itself, and tell the user; the exit code."""
    newest = checkpoint.newest(job.progress)
    write_json(
        job.progress / "stopped.json",
        {
            "step": step + 1,
            "reason": diverged.reason,
            "loss": repr(diverged.loss),
            "checkpoint": newest and newest.name,
        },
    )
    print(
        f"error: {job.title}: stopped at step {step + 1}: {diverged.reason}."
        f" The last good checkpoint is {newest or 'none yet'}.",
        file=sys.stderr,
    )
    return STOPPED


def refuse_stopped(job: Job) -> None:
    """Raise UserError when a former start of this job stopped itself."""
    path = job.progress / "stopped.json"
    if path.exists():
        told = read_json(path)
        raise UserError(
            f"{job.title}: training stopped itself at step {told['step']} ({told['reason']}). The"
            " same settings meet the same wall: lower schedule.peak, lengthen"
            f" warmup_iterations, tighten optimizer.clip or raise spike. Removing {path} tries"
            " again from the last good checkpoint"
        )
