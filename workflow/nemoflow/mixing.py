"""Which conversations go into a mixture, and into which of its splits.

What is chosen is a conversation, never a single one of its sequences: all go to the same split, and
are taken or left together. The order of decisions: what cannot be used is dropped (`cutting`); then
prompts are held out; then each split is weighed. So a weight moves nothing from one split into the
other.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from nemoflow import cutting
from nemoflow.cutting import Pieces
from nemoflow.errors import UserError
from nemoflow.prompt_groups import hold_out
from nemoflow.splits import points
from nemoflow.spool import Spool

Weighted = tuple[Spool, float]
SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Chosen:
    """The sequences of one split: int64[n] which spool, their start in it, and tokens."""

    spools: list[Spool]
    source: np.ndarray
    start: np.ndarray
    length: np.ndarray

    @property
    def eos_id(self) -> int:
        """The token that pads."""
        return self.spools[0].eos_id

    def of(self, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(ids, mask) of these sequences, in this order."""
        columns = (self.source[members], self.start[members], self.length[members])
        for source, start, length in zip(*map(np.ndarray.tolist, columns), strict=True):
            spool, span = self.spools[source], slice(start, start + length)
            yield spool.tokens[span], spool.masks[span]


@dataclass
class Source:
    """The usable conversations of a source.

    row int64[n] their numbers in the spool, prompt, content uint64[n] seeded hashes, tokens
    int64[n] after cutting, valid bool[n]; taken bool[n] what the weights leave.
    """

    spool: Spool
    weight: float
    pieces: Pieces
    row: np.ndarray
    prompt: np.ndarray
    content: np.ndarray
    tokens: np.ndarray
    valid: np.ndarray = field(init=False)
    taken: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.valid = np.zeros(len(self.row), bool)
        self.taken = np.ones(len(self.row), bool)

    def of(self, split: str) -> np.ndarray:
        """The conversations of a split, bool[n]."""
        return self.valid if split == "valid" else ~self.valid

    def chosen(self, split: str) -> np.ndarray:
        """The pieces of the conversations that a split takes, bool[pieces]."""
        takes = np.zeros(self.spool.rows, bool)
        takes[self.row[self.of(split) & self.taken]] = True
        return takes[self.row_of()]

    def row_of(self) -> np.ndarray:
        """The conversation of each piece, int32[pieces]."""
        return self.spool.sequences["row"][self.pieces.sequence]


def choose(
    spools: Mapping[str, Weighted],
    longest: int,
    seed: int,
    valid_fraction: float,
    weigh_by: str = "rows",
    too_long: str = "truncate",
) -> tuple[dict[str, Chosen], dict[str, Source]]:
    """({"train": Chosen, "valid": Chosen}, the sources by name, as they were decided on).

    Held out are whole groups of conversations with one prompt, over all sources, in the order of
    their seeded hashes: round(valid_fraction * rows) of each source as closely as groups allow, at
    least one, while every source keeps one to train on. Equal weights keep every conversation.
    Otherwise, in each split, the source with least of `weigh_by` (rows or tokens) for its weight
    is kept whole, and of the others those with the lowest seeded hash of their content, up to the
    number that comes closest to the share. Nothing is repeated.

    Raises:
        UserError: a weight is negative or not finite, sources were rendered with different
            tokenizers, or one has nothing to train on.
    """
    _check(spools)
    sources = {n: source(*given, longest, seed, too_long) for n, given in spools.items()}
    for name, found in sources.items():
        if not len(found.row):
            raise UserError(f"mixture: no sequence of {name} trains a token; set its weight to 0")
    ordered = list(sources.values())
    if valid_fraction:
        held = hold_out([found.prompt for found in ordered], valid_fraction)
        for found, valid in zip(ordered, held, strict=True):
            found.valid = valid
    for split in SPLITS:
        weigh(ordered, split, weigh_by)
    return {split: _gather(ordered, split) for split in SPLITS}, sources


def source(spool: Spool, weight: float, longest: int, seed: int, too_long: str) -> Source:
    """The conversations of a spool of which anything can be packed."""
    pieces = cutting.cut(spool, longest, too_long)
    row_of = spool.sequences["row"]
    tokens = np.bincount(row_of[pieces.sequence], pieces.length, minlength=spool.rows)
    row = np.flatnonzero(tokens)
    told = spool.sequences[np.searchsorted(row_of, row)]
    prompt = points(seed, "mixture", "prompt", told["prompt"])
    content = points(seed, "mixture", "content", told["content"])
    return Source(spool, weight, pieces, row, prompt, content, tokens[row].astype(np.int64))


def weigh(sources: list[Source], split: str, weigh_by: str) -> None:
    """Leave out of a split what the weights do."""
    there = [source for source in sources if source.of(split).any()]
    if len({source.weight for source in sources}) == 1 or not there:
        return
    amounts = [source.tokens if weigh_by == "tokens" else source.tokens > 0 for source in there]
    totals = [amount[s.of(split)].sum() for s, amount in zip(there, amounts, strict=True)]
    each = min(total / s.weight for s, total in zip(there, totals, strict=True))
    for source, amount in zip(there, amounts, strict=True):
        rows = np.flatnonzero(source.of(split))
        rows = rows[np.argsort(source.content[rows], kind="stable")]
        sums = np.cumsum(amount[rows])
        closest = np.abs(sums - each * source.weight).argmin()  # the first row stays in any case
        source.taken[rows[closest + 1 :]] = False


def _check(spools: Mapping[str, Weighted]) -> None:
    for name, (_, weight) in spools.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"mixture: weight {weight} of {name} must be a finite number >= 0")
    if not spools:
        raise UserError("mixture: no source has a weight above 0")
    if len({spool.eos_id for spool, _ in spools.values()}) > 1:
        raise UserError("mixture: its sources were rendered with different tokenizers")


def _gather(sources: list[Source], split: str) -> Chosen:
    which = [source.chosen(split) for source in sources]
    pieces = [source.pieces for source in sources]
    return Chosen(
        [source.spool for source in sources],
        np.repeat(np.arange(len(sources)), [wanted.sum() for wanted in which]),
        np.concatenate([p.start[wanted] for p, wanted in zip(pieces, which, strict=True)]),
        np.concatenate([p.length[wanted] for p, wanted in zip(pieces, which, strict=True)]),
    )


def told(sources: Mapping[str, Source], trained: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """What the manifest says of each source; `trained` int64[sources] by split, tokens.

    {"weight", "rows": {"in", "dropped" by reason, "left_out" by weight, "train", "valid"},
    "sequences": the same of single sequences, with what was "cut", "split" and "empty_pieces" of
    those that were split, "tokens" and "trained_tokens" of both splits without padding, "asked"
    and "got": its share of the training split}.
    """
    weights = sum(source.weight for source in sources.values())
    found = {
        name: _counts(source, {split: int(trained[split][number]) for split in SPLITS})
        for number, (name, source) in enumerate(sources.items())
    }
    rows = sum(counts["rows"]["train"] for counts in found.values())
    tokens = sum(counts["tokens"]["train"] for counts in found.values())
    for name, counts in found.items():
        own = counts["rows"]["train"] / rows, counts["tokens"]["train"] / tokens
        counts["asked"] = round(sources[name].weight / weights, 6)
        counts["got"] = {"rows": round(own[0], 6), "tokens": round(own[1], 6)}
    return found


def _counts(source: Source, trained: Mapping[str, int]) -> dict:
    pieces, told = source.pieces, source.spool.sequences
    rows = {split: source.of(split) & source.taken for split in SPLITS}
    usable = told["row"][np.unique(pieces.sequence)]
    of_row = np.bincount(usable, minlength=source.spool.rows)[source.row]
    kept = {split: int(of_row[wanted].sum()) for split, wanted in rows.items()}
    return {
        "weight": source.weight,
        "rows": {
            "in": source.spool.rows,
            "dropped": pieces.rows,
            "left_out": int((~source.taken).sum()),
            **{split: int(wanted.sum()) for split, wanted in rows.items()},
        },
        "sequences": {
            "in": len(told),
            "dropped": pieces.sequences,
            "left_out": int(of_row[~source.taken].sum()),
            **kept,
            "cut": pieces.cut,
            "split": pieces.split,
            "empty_pieces": pieces.empty,
        },
        "tokens": {split: int(source.tokens[wanted].sum()) for split, wanted in rows.items()},
        "trained_tokens": dict(trained),
    }
