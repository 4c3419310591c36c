"""Pretraining on a blend of tokenized corpora."""

from collections import defaultdict
from itertools import islice

import numpy as np
import torch

from nemoflow.divergence import SpikeGuard
from nemoflow.engines.local.blended import Blend, Shard, read_split, windows_in_order
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.loop import train
from nemoflow.engines.local.model import ExpertBalance, build, losses
from nemoflow.engines.local.optimizer import Optimizer
from nemoflow.errors import UserError


class Pretraining:
    """Next-token and multi-token prediction, with balanced experts."""

    def __init__(self, job: Job):
        config, blend = job.config, job.inputs["blend"]
        self.size, self.micro = config["batch"]["global"], config["batch"]["micro"]
        self.length, self.stop = config["batch"]["sequence"], config["stop_iteration"]
        self.model = config["model"]
        self.network = build(self.model, job.seed)
        guard = SpikeGuard(config.get("spike"))
        self.optimizer = Optimizer(self.network, config["optimizer"], guard)
        self.balance = ExpertBalance(self.network, self.model["moe"]["bias_update_rate"])
        shards = read_split(blend, "train")
        if not shards:
            raise UserError(f"{blend}: no training data; give the blend a corpus with weight > 0")
        self.blend = Blend(shards, self.length, self.stop * self.size, job.seed)
        self.valid = read_split(blend, "valid")
        self.validate_every = config["validate"]["every"]
        self.validate_windows = config["validate"]["batches"] * self.micro

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        """One update on the global batch of `step`, in micro-batches."""
        batch = torch.from_numpy(self.blend.batch(step * self.size, self.size))
        check_vocabulary(batch, self.model["vocab_size"])
        mtp = self.model["mtp"]
        main = further = 0.0
        for tokens in batch.split(self.micro):
            mask = torch.ones(tokens.shape[0], self.length, dtype=torch.bool)
            sums = losses(self.network, tokens, mask, mtp=bool(mtp))
            # Every sample is full, so a micro-batch's mean weighs by its number of samples.
            share = len(tokens) / self.size
            loss = sums.main / sums.main_tokens * share
            main += float(loss.detach())
            if mtp:
                ahead = sums.mtp / sums.mtp_tokens * share
                further += float(ahead.detach())
                loss = loss + mtp["loss_scale"] * ahead
            loss.backward()
        norm = self.optimizer.update(main, rate)
        self.balance.update()
        measured = {"loss": main, "grad_norm": norm, "tokens": self.size * self.length}
        return measured | ({"mtp_loss": further} if mtp else {})

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss per corpus on its first windows, and their mean by the blend's weights."""
        corpora: dict[str, list[Shard]] = defaultdict(list)
        for shard in self.valid:
            corpora[shard.corpus].append(shard)
        self.network.eval()
        found = {corpus: self.corpus_loss(shards) for corpus, shards in corpora.items()}
        self.network.train()
        if not found:
            return {}
        weights = [sum(shard.weight for shard in shards) for shards in corpora.values()]
        mean = float(np.average(list(found.values()), weights=weights))
        return {"valid_loss": mean} | {f"valid_loss/{name}": loss for name, loss in found.items()}

    def corpus_loss(self, shards: list[Shard]) -> float:
        """Mean loss over the tokens of a corpus's validation windows."""
        windows = windows_in_order(shards, self.length, self.validate_windows)
        total, count = 0.0, 0
        while group := list(islice(windows, self.micro)):
            for size in sorted({len(window) for window in group}):
                tokens = torch.from_numpy(np.stack([w for w in group if len(w) == size]))
                check_vocabulary(tokens, self.model["vocab_size"])
                mask = torch.ones(tokens.shape[0], size - 1, dtype=torch.bool)
                sums = losses(self.network, tokens, mask, mtp=False)
                total, count = total + float(sums.main), count + sums.main_tokens
        return total / count


def check_vocabulary(tokens: torch.Tensor, vocab_size: int) -> None:
    """Raise UserError for a token id that the model has no embedding for."""
    if (largest := int(tokens.max())) >= vocab_size:
        raise UserError(
            f"model.vocab_size: {vocab_size}, but the data holds token id {largest}; the data were"
            " made with another tokenizer, or the vocabulary must be larger"
        )


def pretrain(job: Job) -> int:
    """Run a pretraining job; the exit code."""
    return train(job, Pretraining(job))
