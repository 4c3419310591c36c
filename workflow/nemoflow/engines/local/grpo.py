"""GRPO: group-relative advantages on verifiable rewards (arXiv 2402.03300).

With DAPO's wider upper clip and its dropping of groups that all scored the same
(arXiv 2503.14476), as the recipes have it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from nemoflow.divergence import SpikeGuard
from nemoflow.engines.local import weights
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.loop import train
from nemoflow.engines.local.model import build
from nemoflow.engines.local.optimizer import Optimizer
from nemoflow.engines.local.rewards import reward_of
from nemoflow.engines.local.rollout import Rollouts, logprobs_of, sample
from nemoflow.errors import UserError


class PolicyOptimization:
    """A step samples completions for some prompts, scores them, and updates in minibatches."""

    validate_every = None

    def __init__(self, job: Job):
        self.config, self.seed, self.stop = job.config, job.seed, job.config["iterations"]
        self.sampling = job.config["generation"]
        init = Path(job.inputs["init"])
        # padding_side must be said at every load: the saved value is not kept for all classes,
        # and generating from right-padded prompts fails silently.
        self.tokenizer = AutoTokenizer.from_pretrained(init, padding_side="left")
        self.network = build(job.config["model"], job.seed)
        if job.config["model"]["mtp"]:
            self.network.mtp.requires_grad_(False)
        # Policy losses pass through zero, so only one that is not finite means divergence.
        self.optimizer = Optimizer(self.network, job.config["optimizer"], SpikeGuard(None))
        self.rows = read_prompts(Path(job.inputs["prompts"]) / "train.jsonl")
        self.check_lengths()
        self.reference = None
        if job.config["kl"]:
            self.reference = build(job.config["model"], job.seed).requires_grad_(False).eval()
            weights.load_weights(self.reference, init)

    def encode(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The prompts as the chat template writes them, left-padded."""
        return self.tokenizer.apply_chat_template(
            [row["responses_create_params"]["input"] for row in rows],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )

    def check_lengths(self) -> None:
        """Raise UserError for a prompt that leaves no room for its completion."""
        lengths = self.encode(self.rows)["attention_mask"].sum(1)
        room = self.config["model"]["max_positions"] - self.sampling["max_new_tokens"]
        if (longest := int(lengths.max())) > room:
            raise UserError(
                f"prompt {int(lengths.argmax()) + 1} has {longest} tokens, and max_new_tokens"
                f" {self.sampling['max_new_tokens']} of model.max_positions"
                f" {self.config['model']['max_positions']} leave {room}; shorten or drop it"
            )

    def chosen(self, step: int) -> list[dict[str, Any]]:
        """The prompts of a step, of an endless sequence shuffled anew every epoch."""
        size, count = self.config["prompts_per_step"], len(self.rows)
        places = [divmod(step * size + index, count) for index in range(size)]
        orders = {
            epoch: np.random.default_rng([self.seed, epoch]).permutation(count)
            for epoch in {epoch for epoch, _ in places}
        }
        return [self.rows[orders[epoch][place]] for epoch, place in places]

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        """Roll out, score, update; `reward` is the mean over all completions of the step."""
        config, rows = self.config, self.chosen(step)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        encoded = self.encode(rows)
        self.network.eval()
        rollouts = sample(
            self.network,
            encoded["input_ids"],
            encoded["attention_mask"],
            config["generations_per_prompt"],
            self.sampling["max_new_tokens"],
            self.sampling["temperature"],
            self.tokenizer.eos_token_id,
            generator,
        )
        self.network.train()
        rewards = self.score(rows, rollouts)
        advantages, kept = group_advantages(rewards)
        measured = {"loss": 0.0, "grad_norm": 0.0}
        if kept:
            measured = self.improve(rollouts, advantages, rate, generator)
        return measured | {
            "reward": float(rewards.mean()),
            "kept_groups": kept,
            "completion_tokens": float(rollouts.counted.sum(1).float().mean()),
            "tokens": int(rollouts.attention.sum()),
        }

    def validate(self) -> dict[str, float]:
        """Nothing: held-out problems are the evaluation's."""
        return {}

    def score(self, rows: list[dict[str, Any]], rollouts: Rollouts) -> torch.Tensor:
        """The rewards, float32 [prompts, generations]."""
        new, generations = rollouts.counted.shape[1], self.config["generations_per_prompt"]
        ids = rollouts.tokens[:, -new:].masked_fill(~rollouts.counted, self.tokenizer.pad_token_id)
        texts = self.tokenizer.batch_decode(ids.cpu(), skip_special_tokens=True)
        scored = [
            reward_of(row)(row, texts[index * generations + generation])
            for index, row in enumerate(rows)
            for generation in range(generations)
        ]
        return torch.tensor(scored).view(len(rows), generations)

    def improve(
        self,
        rollouts: Rollouts,
        advantages: torch.Tensor,
        rate: float,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """One pass over the completions with an advantage, in `minibatches` updates."""
        useful = advantages.nonzero().squeeze(1)
        useful = useful[torch.randperm(len(useful), generator=generator)]
        found = []
        for part in useful.tensor_split(min(self.config["minibatches"], len(useful))):
            rows = part.to(self.network.device)
            chosen = Rollouts(*(tensor[rows] for tensor in rollouts))
            loss = self.policy_loss(chosen, advantages[part].to(self.network.device))
            loss.backward()
            value = float(loss.detach())
            found.append((value, self.optimizer.update(value, rate)))
        loss, norm = np.mean(found, axis=0)
        return {"loss": float(loss), "grad_norm": float(norm)}

    def policy_loss(self, rollouts: Rollouts, advantages: torch.Tensor) -> torch.Tensor:
        """The clipped surrogate, mean over all counted tokens of the minibatch."""
        config, mask = self.config, rollouts.counted
        temperature = self.sampling["temperature"]
        now = logprobs_of(self.network, rollouts, temperature)
        ratio = (now - rollouts.logprobs).exp()
        clipped = ratio.clamp(1 - config["clip_low"], 1 + config["clip_high"])
        gain = torch.minimum(ratio * advantages[:, None], clipped * advantages[:, None])
        if self.reference is not None:
            with torch.no_grad():
                reference = logprobs_of(self.reference, rollouts, temperature)
            apart = reference - now
            gain = gain - config["kl"] * (apart.exp() - apart - 1)  # k3, joschu.net/blog/kl-approx
        return -(gain * mask).sum() / mask.sum()


def group_advantages(rewards: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Rewards [prompts, generations] as advantages [prompts * generations], and the groups kept.

    Normalised by each group's mean and standard deviation; groups whose rewards are all equal
    tell nothing and get 0.
    """
    spread = rewards.std(1, keepdim=True)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-6)
    return (advantages * (spread > 0)).flatten(), int((spread > 0).sum())


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """The rows of an RL JSONL file; raises UserError when it has none or an agent is unknown."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line]
    if not rows:
        raise UserError(f"{path}: no prompts; resolve the prompts again")
    for row in rows:
        reward_of(row)
    return rows


def grpo(job: Job) -> int:
    """Run an RL job; the exit code."""
    if job.config["algorithm"] != "grpo":
        raise UserError(f"algorithm: the local engine has grpo, not {job.config['algorithm']!r}")
    return train(job, PolicyOptimization(job))
