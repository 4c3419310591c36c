"""Pretraining samples out of bin/idx shards, mixed as blend.json says."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemoflow.errors import UserError
from nemoflow.files import read_json
from nemoflow.indexed import IndexedReader


@dataclass(frozen=True)
class Shard:
    """One prefix of a blend: its weight and its tokens, documents end to end."""

    weight: float
    prefix: str
    tokens: np.ndarray

    @property
    def corpus(self) -> str:
        """The corpus it belongs to: .../{corpus}/{part}/{split}_{shard}."""
        return Path(self.prefix).parent.parent.name


def read_split(blend: str | Path, split: str) -> list[Shard]:
    """The shards of one split of a blend.json.

    Raises UserError for a list that is not pairs of weight and prefix, or a prefix without tokens.
    """
    flat = read_json(blend).get(split) or []
    if len(flat) % 2:
        raise UserError(f"{blend}: {split} must alternate weight and prefix; build the blend again")
    shards = []
    for weight, prefix in zip(flat[::2], flat[1::2], strict=True):
        if not Path(f"{prefix}.idx").exists():
            raise UserError(f"{blend}: {split} lists {prefix}, which is absent; make its tokens")
        tokens = IndexedReader(prefix).tokens
        if len(tokens) < 2:
            raise UserError(
                f"{blend}: {split} lists {prefix}, which is empty; build the blend again"
            )
        shards.append(Shard(float(weight), prefix, tokens))
    return shards


def choose_sources(weights: np.ndarray, samples: int) -> np.ndarray:
    """Which source each of the first `samples` samples is from, int16 [samples].

    Always the one that lags most behind its share, as Megatron-LM's `build_blending_indices`.
    """
    shares = weights / weights.sum()
    taken = np.zeros(len(shares))
    chosen = np.empty(samples, np.int16)
    for sample in range(samples):
        chosen[sample] = source = np.argmax(shares * max(sample, 1) - taken)
        taken[source] += 1
    return chosen


class Blend:
    """The training samples of a blend: sample i follows from (seed, blend, i) alone.

    Each shard is cut into windows of `length` + 1 tokens that overlap by one, shuffled anew every
    epoch. `samples` bounds i.
    """

    def __init__(self, shards: list[Shard], length: int, samples: int, seed: int):
        self.shards, self.length, self.seed = shards, length, seed
        self.sources = choose_sources(np.array([shard.weight for shard in shards]), samples)
        self.turns = np.empty(samples, np.int64)
        for source in range(len(shards)):
            mine = self.sources == source
            self.turns[mine] = np.arange(mine.sum())
        self.orders: dict[tuple[int, int], np.ndarray] = {}

    def sample(self, index: int) -> np.ndarray:
        """The tokens of one sample, int64 [length + 1]; a shard shorter than that is repeated."""
        source, turn = int(self.sources[index]), int(self.turns[index])
        tokens = self.shards[source].tokens
        windows = max(1, (len(tokens) - 1) // self.length)
        epoch, place = divmod(turn, windows)
        if (source, epoch) not in self.orders:
            rng = np.random.default_rng([self.seed, source, epoch])
            self.orders[source, epoch] = rng.permutation(windows)
        start = self.orders[source, epoch][place] * self.length
        if start + self.length < len(tokens):
            return tokens[start : start + self.length + 1].astype(np.int64)
        return tokens[np.arange(start, start + self.length + 1) % len(tokens)].astype(np.int64)

    def batch(self, start: int, size: int) -> np.ndarray:
        """Samples `start` to `start + size`, int64 [size, length + 1]."""
        return np.stack([self.sample(index) for index in range(start, start + size)])


def windows_in_order(shards: list[Shard], length: int, limit: int) -> Iterator[np.ndarray]:
    """The first `limit` windows of shards one after another, for validation; no padding."""
    left = limit
    for shard in shards:
        size = min(length, len(shard.tokens) - 1)
        for start in range(0, min(left, (len(shard.tokens) - 1) // size) * size, size):
            yield shard.tokens[start : start + size + 1].astype(np.int64)
            left -= 1
