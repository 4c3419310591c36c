"""What we do between Megatron-Bridge's steps: measure, judge, keep, stop.

A callback sees a step after its update and before `train_state.step` counts it. A step that went
wrong is therefore never saved, and the newest checkpoint is good.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.bridge.training.callbacks import Callback, CallbackContext
from megatron.bridge.training.checkpointing import maybe_finalize_async_save
from megatron.core.transformer.multi_token_prediction import MTPLossLoggingHelper

from nemoflow import metrics, ranks
from nemoflow.divergence import RECENT, Diverged, SpikeGuard
from nemoflow.engines.megatron.saving import Saving
from nemoflow.metrics import Metrics
from nemoflow.progress import Progress

LOSS = "lm loss"  # key of the reduced losses (training/losses.py)


class Callbacks(Callback):
    """One process's part in it.

    The last process has the loss, being of the last pipeline stage: it `tells`. The first one looks
    after checkpoints and the time limit.
    """

    def __init__(self, job: dict[str, Any], stop: int):
        self.job, self.stop, self.progress = job, stop, Path(job["progress"])
        rank, world = ranks.place()
        self.first, self.tells = rank == 0, rank == world - 1
        self.guard = SpikeGuard(job["options"].get("spike"))
        self.saving = Saving(self.progress, job["options"], stop)
        self.step = self.tokens = 0
        self.rate = math.nan
        self.metrics: Metrics | None = None

    def on_train_start(self, context: CallbackContext) -> None:
        """Cut the metrics back to the step that training begins at."""
        state = context.state.train_state
        self.step, self.tokens = state.step, self.tokens_of(state.consumed_train_samples)
        if self.tells:
            path = self.progress / "metrics.jsonl"
            self.metrics = Metrics(path, self.step)
            every = self.job["options"]["status_seconds"]
            self.bar = Progress(self.job["title"], self.step, self.stop, every)
            self.began = time.monotonic() - self.metrics.seconds
            self.told = (time.monotonic(), self.tokens)
            self.guard.recent = [line["loss"] for line in metrics.read(path)][-RECENT:]

    def on_train_step_start(self, context: CallbackContext) -> None:
        """Take note of this update's learning rate: afterwards it is the next one's."""
        groups = [group for group in context.optimizer.param_groups if group]
        own = [group for group in groups if not group.get("is_decoupled_lr")]
        self.rate = own[0]["lr"] if own else math.nan
        if self.first:
            self.saving.begin_step()

    def on_train_step_end(self, context: CallbackContext) -> None:
        """Judge the step and tell of it.

        Raises:
            Diverged: on every process, when any finds that training must not go on.
        """
        state = context.state.train_state
        self.step = state.step + 1
        samples = state.consumed_train_samples + self.job["config"]["batch"]["global"]
        self.tokens = self.tokens_of(samples)
        loss = float(context.loss_dict[LOSS]) if LOSS in (context.loss_dict or {}) else None
        norm = float(context.grad_norm) if context.grad_norm is not None else 0.0
        self.judge(context, loss, norm)
        logged = self.step % self.job["options"]["log_every"] == 0 or self.step == self.stop
        mtp = mtp_loss(context) if logged else None
        if self.tells and loss is not None:
            self.tell(loss, norm, mtp, logged)
        if self.first:
            self.saving.end_step(self.step)

    def judge(self, context: CallbackContext, loss: float | None, norm: float) -> None:
        """Raise Diverged on all processes where the one that tells has reason to.

        A save that is at work in the background is finished first: it is of a good step.
        """
        reason = None
        try:
            if self.tells and loss is not None:
                self.guard.check(loss, norm)
        except Diverged as diverged:
            reason = diverged
        if agreed(reason is not None):
            state = context.state
            maybe_finalize_async_save(state, state.cfg.checkpoint, blocking=True, terminate=True)
            raise reason or Diverged("the last process tells why", math.nan)

    def tell(self, loss: float, norm: float, mtp: float | None, logged: bool) -> None:
        """Add a line to metrics.jsonl, if it is this step's turn, and one on standard error."""
        now = time.monotonic()
        speed = (self.tokens - self.told[1]) / max(now - self.told[0], 1e-9)
        self.bar.update(self.step, loss, self.rate, speed)
        if not logged:
            return
        line = {"loss": loss, "lr": self.rate, "grad_norm": norm, "tokens": self.tokens}
        line |= {} if mtp is None else {"mtp_loss": mtp}
        line |= {"tokens_per_second": speed, "seconds": now - self.began}
        self.metrics.write(self.step, line)
        self.metrics.sync()
        self.told = (now, self.tokens)

    def tokens_of(self, samples: int) -> int:
        """The tokens of so many sequences."""
        return samples * self.job["config"]["batch"]["sequence"]

    def close(self) -> None:
        """End the line and the file, and wait for what is being removed."""
        if self.metrics is not None:
            self.bar.close()
            self.metrics.close()
        self.saving.close()


def agreed(here: bool) -> bool:
    """Whether any process says so."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return here
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    told = torch.tensor([int(here)], device=device)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told.item())


def mtp_loss(context: CallbackContext) -> float | None:
    """The loss of the MTP head, averaged over depths; None where this process has none.

    Megatron-core sums it over micro-batches until Megatron-Bridge logs it, after the callback; the
    groups are those that `MTPLossLoggingHelper` reduces it over. "values" is up to 0.17.
    """
    tracker = MTPLossLoggingHelper.tracker
    values = tracker.get("loss_values", tracker.get("values"))
    if values is None:
        return None
    values = values.clone()
    if group := tracker.get("reduce_group"):
        dist.all_reduce(values, group=group)
    if group := tracker.get("avg_group"):
        dist.all_reduce(values, group=group, op=dist.ReduceOp.AVG)
    train = context.state.cfg.train
    batches = train.global_batch_size // (
        train.micro_batch_size * context.state.cfg.data_parallel_size
    )
    return float(values.mean()) / batches
