"""Sampling completions in batches, with a cache."""

from typing import NamedTuple

import torch
from transformers import DynamicCache

from nemoflow.engines.local.model import NemotronH


class Rollouts(NamedTuple):
    """Completions of a batch of prompts; n = prompts x generations, generations side by side.

    tokens: int64 [n, prompt + new], left-padded prompts with their completions. attention: int64,
    same shape. counted: bool [n, new], the tokens up to and with the first end token. logprobs:
    float32 [n, new], what each sampled token had when it was drawn.
    """

    tokens: torch.Tensor
    attention: torch.Tensor
    counted: torch.Tensor
    logprobs: torch.Tensor


@torch.no_grad()
def sample(
    network: NemotronH,
    prompts: torch.Tensor,
    attention: torch.Tensor,
    generations: int,
    max_new_tokens: int,
    temperature: float,
    end: int,
    generator: torch.Generator,
) -> Rollouts:
    """Draw `generations` completions of each left-padded prompt (int64 [prompts, length]).

    The rollouts lie where the network does; the draws are a CPU's, of `generator`, everywhere.
    """
    prompts, attention = prompts.to(network.device), attention.to(network.device)
    cache, logits = prefill(network, prompts, attention, generations)
    tokens = prompts.repeat_interleave(generations, 0)
    attention = attention.repeat_interleave(generations, 0)
    alive = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    counted, logprobs = [], []
    while True:
        distribution = (logits / temperature).log_softmax(-1)
        drawn = torch.multinomial(distribution.exp().cpu(), 1, generator=generator)
        drawn = drawn.to(tokens.device)
        counted.append(alive)
        logprobs.append(distribution.gather(1, drawn).squeeze(1))
        tokens = torch.cat([tokens, drawn], 1)
        attention = torch.cat([attention, alive[:, None].to(attention.dtype)], 1)
        alive = alive & (drawn.squeeze(1) != end)
        if len(counted) == max_new_tokens or not alive.any():
            break
        logits = network(
            input_ids=drawn, attention_mask=attention, past_key_values=cache, use_cache=True
        ).logits[:, -1]
    return Rollouts(tokens, attention, torch.stack(counted, 1), torch.stack(logprobs, 1))


def prefill(
    network: NemotronH, prompts: torch.Tensor, attention: torch.Tensor, generations: int
) -> tuple[DynamicCache, torch.Tensor]:
    """Run each prompt once; its cache and last logits, repeated for each generation."""
    cache = DynamicCache(config=network.config)
    logits = network(
        input_ids=prompts,
        attention_mask=attention,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    repeats = torch.arange(len(prompts), device=prompts.device).repeat_interleave(generations)
    cache.reorder_cache(repeats)
    return cache, logits[repeats]


def logprobs_of(network: NemotronH, rollouts: Rollouts, temperature: float) -> torch.Tensor:
    """The log-probabilities that `network` gives the completions' tokens now, [n, new]."""
    new = rollouts.counted.shape[1]
    logits = network(
        input_ids=rollouts.tokens,
        attention_mask=rollouts.attention,
        use_cache=False,
        logits_to_keep=new + 1,
    ).logits[:, :-1]
    distribution = (logits / temperature).log_softmax(-1)
    return distribution.gather(2, rollouts.tokens[:, -new:, None]).squeeze(2)
