"""The one training loop: resume, steps, metrics, validation, checkpoints, early ends."""

import time
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file, save_file

from nemoflow import checkpoint, divergence
from nemoflow.engines import device
from nemoflow.engines.local import adapters, weights
from nemoflow.engines.local.interruption import Interruption
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.model import NemotronH
from nemoflow.engines.local.optimizer import Optimizer
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json
from nemoflow.hub import hub_config
from nemoflow.launch import INTERRUPTED
from nemoflow.metrics import Metrics
from nemoflow.progress import Progress, say
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
    the same bytes; at SIGTERM, and shortly before its time limit, it saves where it is and returns
    INTERRUPTED. Raises UserError when training had stopped itself before.
    """
    if checkpoint.final(job.progress):
        return 0
    divergence.refuse_stopped(job.progress, job.title)
    device.tell(job.title, trainer.network.device)
    with Interruption() as interruption:
        first, tokens = resume(job, trainer)
        step, told = first, Telling(job, trainer.stop, first, tokens)
        trainer.network.train()
        while step < trainer.stop:
            if reason := interruption.reason():
                told.close()
                if step > first and step % job.options["save_every"]:
                    save(job, trainer, step, tokens)
                return interrupted(job, trainer, step, reason)
            rate = learning_rate(job.config["schedule"], step)
            try:
                measured = trainer.train_step(step, rate)
            except divergence.Diverged as diverged:
                told.close()
                return divergence.stop(job.progress, job.title, step + 1, diverged)
            step, tokens = step + 1, tokens + measured["tokens"]
            last = step == trainer.stop
            if validated := last or (trainer.validate_every and step % trainer.validate_every == 0):
                measured |= trainer.validate()
            told.step(step, tokens, rate, measured, always=bool(validated))
            if last or step % job.options["save_every"] == 0:
                told.sync()
                save(job, trainer, step, tokens)
    told.close()
    checkpoint.finish(job.progress, step)
    return 0


class Telling:
    """What a job tells of its steps: metrics.jsonl, and a line on standard error now and then."""

    def __init__(self, job: Job, stop: int, step: int, tokens: int):
        self.every = job.options["log_every"]
        self.metrics = Metrics(job.progress / "metrics.jsonl", step)
        self.progress = Progress(job.title, step, stop, job.options["status_seconds"])
        self.began = time.monotonic() - self.metrics.seconds
        self.last = (time.monotonic(), tokens)

    def step(
        self, step: int, tokens: int, rate: float, measured: dict[str, float], always: bool
    ) -> None:
        """Tell of a finished step; in metrics.jsonl every `log_every` steps, or `always`."""
        now = time.monotonic()
        speed = (tokens - self.last[1]) / max(now - self.last[0], 1e-9)
        self.progress.update(step, measured["loss"], rate, speed)
        if always or step % self.every == 0:
            timings = {"tokens_per_second": speed, "seconds": now - self.began}
            self.metrics.write(step, measured | {"lr": rate, "tokens": tokens} | timings)
            self.last = (now, tokens)

    def sync(self) -> None:
        """Put metrics.jsonl on disk, before a checkpoint that its lines belong to."""
        self.metrics.sync()

    def close(self) -> None:
        """End the line and the file."""
        self.metrics.sync()
        self.progress.close()
        self.metrics.close()


def interrupted(job: Job, trainer: Trainer, step: int, reason: str) -> int:
    """Say in one line that the job ends early, and what from here on is safe; the exit code."""
    newest = checkpoint.newest(job.progress)
    say(
        f"{job.title}: {reason}: ended after step {step} of {trainer.stop}; the same command goes"
        f" on from {newest or 'the start'}"
    )
    return INTERRUPTED


def save(job: Job, trainer: Trainer, step: int, tokens: int) -> None:
    """Write the checkpoint of `step` and remove those that `keep` no longer covers."""
    model = job.config["model"]
    with checkpoint.writing(job.progress, step) as folder:
        if job.config.get("lora"):
            adapters.save(trainer.network, folder)
        else:
            named = weights.to_hub(trainer.network.state_dict())
            weights.save_weights(named, hub_config(model), folder)
        save_file(trainer.optimizer.state(), folder / "optimizer.safetensors")
        state = {"task": job.task, "step": step, "tokens": tokens, "model": model}
        state["recent_losses"] = trainer.optimizer.guard.recent
        write_json(folder / "state.json", state)
    checkpoint.prune(job.progress, job.options, trainer.stop)


def load(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Restore weights (of adapters alone, where there are) and optimizer; its state.json.

    Raises UserError for a folder that has no optimizer: an exported or imported model.
    """
    if not (folder / "optimizer.safetensors").exists():
        raise UserError(f"{folder}: no optimizer there to continue with; set init: weights")
    read = adapters.load if adapters.named(trainer.network) else weights.load_weights
    read(trainer.network, folder)
    trainer.optimizer.load(load_file(folder / "optimizer.safetensors"))
    return read_json(folder / "state.json")


def resume(job: Job, trainer: Trainer) -> tuple[int, int]:
    """Continue the newest checkpoint of `progress`, else begin by `init`; (step, tokens) so far.

    `init` "continue" takes everything of inputs.init but its recent losses, since they tell of
    other data; "weights", the rule for SFT and RL, and "merged" take the weights alone. Adapters
    come into a network that has loaded them already.
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
        if init != "random" and not adapters.named(trainer.network):
            weights.load_weights(trainer.network, Path(source))
        state = {"step": 0, "tokens": 0}
    return state["step"], state["tokens"]
