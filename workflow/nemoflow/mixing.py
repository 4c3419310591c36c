"""Which rendered sequences go into a mixture, and into which of its splits."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemoflow.errors import UserError
from nemoflow.splits import point, quota
from nemoflow.spool import Spool

Weighted = tuple[Spool, float]


@dataclass(frozen=True)
class Chosen:
    """The sequences of one split: which spool, which sequence in it, and length after cutting.

    `source` int64[n] is an index into `spools`, `index` int64[n] one into that spool, `lengths`
    int64[n] tokens.
    """

    spools: list[Spool]
    source: np.ndarray
    index: np.ndarray
    lengths: np.ndarray

    @property
    def eos_id(self) -> int:
        """The token that pads."""
        return self.spools[0].eos_id

    def of(self, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(ids, mask) of these sequences, in this order."""
        for member in members.tolist():
            ids, mask = self.spools[self.source[member]].sequence(self.index[member])
            yield ids[: self.lengths[member]], mask[: self.lengths[member]]


def choose(
    spools: Mapping[str, Weighted], longest: int, seed: int, valid_fraction: float
) -> tuple[dict[str, Chosen], dict[str, dict[str, Any]]]:
    """({"train": Chosen, "valid": Chosen}, counts by source).

    A sequence is cut to `longest` tokens; one that then trains nothing is dropped. Equal weights
    keep every sequence. Otherwise weights are the sources' shares of the sequences: the scarcest
    source is kept whole, of the others as many as its share allows, at least one, those with the
    lowest seeded hash of their tokens. Nothing is repeated. Of what is kept of each source,
    round(valid_fraction * sequences), at least one while one remains, go to valid, again by
    hash: equal sequences have equal hashes, so none is in both splits.

    Counts: {"weight", "in", "truncated", "dropped": {"no_trained_tokens": n}, "left_out" (by
    weight), "train", "valid" (sequences), "tokens" (kept, unpadded), "share" of all kept
    sequences, "token_share"}. UserError for a weight that is negative or not finite, or when no
    sequence is left to train on.
    """
    _check(spools)
    sources = {name: Source(*weighted, longest, seed) for name, weighted in spools.items()}
    for name, count in _takes(sources).items():
        sources[name].keep(count)
    held_out = np.concatenate([source.lowest(valid_fraction) for source in sources.values()])
    for source in sources.values():
        source.valid = np.isin(source.points, held_out)
    if all(source.valid.all() for source in sources.values()):
        raise UserError(
            f"mixture: no sequence is left to train on beside {len(held_out)} for validation;"
            " add conversations, or set valid_fraction: 0"
        )
    ordered = list(sources.values())
    chosen = {"train": _gather(ordered, False), "valid": _gather(ordered, True)}
    return chosen, _with_shares({name: source.counts() for name, source in sources.items()})


class Source:
    """The sequences of one source that train something, and the seeded hashes of their tokens.

    `index` int64[n] into the spool, `points` uint64[n], `valid` bool[n] once the split is known.
    """

    def __init__(self, spool: Spool, weight: float, longest: int, seed: int) -> None:
        self.spool, self.weight, self.longest = spool, weight, longest
        count = len(spool.lengths)
        trained = (spool.sequence(i)[1][1:longest].any() for i in range(count))
        self.index = np.flatnonzero(np.fromiter(trained, bool, count))
        self.usable = len(self.index)
        content = (spool.sequence(i)[0][:longest].tobytes() for i in self.index.tolist())
        self.points = np.fromiter((point(seed, ids) for ids in content), np.uint64, self.usable)
        self.valid = np.zeros(self.usable, bool)

    def keep(self, count: int) -> None:
        """Keep the `count` sequences with the lowest hashes, in the source's order."""
        kept = np.sort(np.argsort(self.points, kind="stable")[:count])
        self.index, self.points, self.valid = self.index[kept], self.points[kept], self.valid[kept]

    def lowest(self, fraction: float) -> np.ndarray:
        """The hashes of the sequences to hold out."""
        distinct = np.unique(self.points)
        return distinct[: quota(len(distinct), fraction)]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each kept sequence, after cutting."""
        return np.minimum(self.spool.lengths[self.index], self.longest)

    def counts(self) -> dict[str, Any]:
        """What became of the source's sequences."""
        return {
            "weight": self.weight,
            "in": len(self.spool.lengths),
            "truncated": int((self.spool.lengths > self.longest).sum()),
            "dropped": {"no_trained_tokens": len(self.spool.lengths) - self.usable},
            "left_out": self.usable - len(self.index),
            "train": int((~self.valid).sum()),
            "valid": int(self.valid.sum()),
            "tokens": int(self.lengths.sum()),
        }


def _check(spools: Mapping[str, Weighted]) -> None:
    for name, (_, weight) in spools.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"mixture: weight {weight} of {name} must be a finite number >= 0")
    if not spools:
        raise UserError("mixture: no source has a weight above 0")
    if len({spool.eos_id for spool, _ in spools.values()}) > 1:
        raise UserError("mixture: its sources were rendered with different tokenizers")


def _takes(sources: Mapping[str, Source]) -> dict[str, int]:
    """How many sequences of each source the weights keep."""
    for name, source in sources.items():
        if not source.usable:
            raise UserError(f"mixture: no sequence of {name} trains a token; set its weight to 0")
    if len({source.weight for source in sources.values()}) == 1:
        return {name: source.usable for name, source in sources.items()}
    per_weight = min(source.usable / source.weight for source in sources.values())
    return {
        name: min(source.usable, max(1, round(per_weight * source.weight)))
        for name, source in sources.items()
    }


def _gather(sources: list[Source], valid: bool) -> Chosen:
    which = [source.valid == valid for source in sources]
    return Chosen(
        [source.spool for source in sources],
        np.repeat(np.arange(len(sources)), [wanted.sum() for wanted in which]),
        np.concatenate([s.index[wanted] for s, wanted in zip(sources, which, strict=True)]),
        np.concatenate([s.lengths[wanted] for s, wanted in zip(sources, which, strict=True)]),
    )


def _with_shares(counts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    sequences = sum(source["train"] + source["valid"] for source in counts.values())
    tokens = sum(source["tokens"] for source in counts.values())
    return {
        name: {
            **source,
            "share": round((source["train"] + source["valid"]) / sequences, 6),
            "token_share": round(source["tokens"] / tokens, 6),
        }
        for name, source in counts.items()
    }
