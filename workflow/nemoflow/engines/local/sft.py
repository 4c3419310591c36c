"""Supervised fine-tuning on packed conversations, of all weights or of adapters.

Only masked-in tokens count.
"""

from pathlib import Path

import torch

from nemoflow.divergence import SpikeGuard
from nemoflow.engines.local import adapters
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.loop import train
from nemoflow.engines.local.model import build, losses
from nemoflow.engines.local.optimizer import Optimizer
from nemoflow.engines.local.packed import PackedRows
from nemoflow.engines.local.pretrain import check_vocabulary
from nemoflow.engines.local.weights import load_weights
from nemoflow.progress import say


class FineTuning:
    """A step takes `batch.global` packed rows; the loss is the mean over their counted tokens."""

    def __init__(self, job: Job):
        config, data = job.config, Path(job.inputs["data"])
        self.size, self.micro = config["batch"]["global"], config["batch"]["micro"]
        self.model, self.stop, self.seed = config["model"], config["iterations"], job.seed
        self.network = build(self.model, job.seed)
        if lora := config.get("lora"):
            load_weights(self.network, Path(job.inputs["init"]))
            adapters.insert(self.network, lora, job.seed)
            say(f"{job.title}: {adapters.share(self.network)}")
        guard = SpikeGuard(config.get("spike"))
        self.optimizer = Optimizer(self.network, config["optimizer"], guard)
        self.rows = PackedRows(data / "train")
        self.valid = PackedRows(data / "valid") if any((data / "valid").glob("*.parquet")) else None
        self.validate_every = config["validate"]["every"]
        self.validate_rows = config["validate"]["batches"] * self.micro

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        """One update on the rows of `step`, in micro-batches of packed rows."""
        chosen = self.rows.chosen(step * self.size, self.size, self.seed)
        batches = [
            self.rows.batch(chosen[start : start + self.micro])
            for start in range(0, self.size, self.micro)
        ]
        counted = max(1, sum(int(mask.sum()) for _, mask in batches))
        mtp, main, further = self.model["mtp"], 0.0, 0.0
        depths = range(1, mtp["depths"] + 1 if mtp else 1)
        ahead = max(1, sum(int(mask[:, depth:].sum()) for depth in depths for _, mask in batches))
        for tokens, mask in batches:
            check_vocabulary(tokens, self.model["vocab_size"])
            sums = losses(self.network, tokens, mask, mtp=bool(mtp))
            main += float(sums.main.detach()) / counted
            loss = sums.main / counted
            if mtp:
                further += float(sums.mtp.detach()) / ahead
                loss = loss + mtp["loss_scale"] * sums.mtp / ahead
            loss.backward()
        norm = self.optimizer.update(main, rate)
        measured = {"loss": main, "grad_norm": norm, "tokens": counted}
        return measured | ({"mtp_loss": further} if mtp else {})

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The mean loss over the counted tokens of the first validation rows."""
        if self.valid is None:
            return {}
        self.network.eval()
        total, count = 0.0, 0
        last = min(self.validate_rows, len(self.valid))
        for start in range(0, last, self.micro):
            tokens, mask = self.valid.batch(list(range(start, min(start + self.micro, last))))
            sums = losses(self.network, tokens, mask, mtp=False)
            total, count = total + float(sums.main), count + sums.main_tokens
        self.network.train()
        return {"valid_loss": total / max(count, 1)}


def sft(job: Job) -> int:
    """Run a fine-tuning job; the exit code."""
    return train(job, FineTuning(job))
