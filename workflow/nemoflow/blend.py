"""The blend file of a phase: which shards, with which weight, in which split."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError
from nemoflow.files import read_json

SPLITS = ("train", "valid", "test")
Shards = list[dict[str, Any]]


def make_blend(
    weights: Mapping[str, float], corpora: Mapping[str, Shards]
) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """The blend of Megatron-Bridge's `per_split_data_args_path`, and what it asks of each corpus.

    `weights` are relative, by corpus; a corpus of weight 0 takes no part. `corpora` are the
    shards {"prefix", "split", "tokens"} of each. A shard weighs its corpus's weight times its
    share of the corpus's tokens in that split, so that every token of a corpus is as likely.
    A corpus without documents in valid or test is left out of that list.

    Returns ({"train": [weight, prefix, ...], "valid": ..., "test": ...}, all strings, and
    {corpus: {"weight", "requested": share of training, "tokens": training tokens, "share" of
    all training tokens, "absent": splits it is left out of}}). UserError for an unknown corpus,
    a weight that is negative or not finite, a corpus without training tokens, or a split that
    no corpus has: Megatron refuses an empty list.
    """
    _check_weights(weights, corpora)
    used = {corpus: float(weight) for corpus, weight in weights.items() if weight}
    tokens = {corpus: _tokens(corpora[corpus]) for corpus in used}
    blend: dict[str, list[str]] = {split: [] for split in SPLITS}
    for corpus, weight in used.items():
        if not tokens[corpus]["train"]:
            raise UserError(f"blend: corpus {corpus} has no training tokens; set its weight to 0")
        for shard in corpora[corpus]:
            if shard["tokens"]:
                share = shard["tokens"] / tokens[corpus][shard["split"]]
                blend[shard["split"]] += [repr(weight * share), str(shard["prefix"])]
    for split in SPLITS:
        if not blend[split]:
            raise UserError(
                f"blend: no corpus of {', '.join(used)} has a document in its {split} split, and"
                f" Megatron refuses an empty one; raise splits.{split} of a corpus above 0"
            )
    return blend, _shares(used, tokens)


def check_blend(path: str | Path) -> None:
    """UserError unless the blend file's lists are pairs whose shards all have .bin and .idx."""
    blend = read_json(path)
    for split in SPLITS:
        entries = blend.get(split)
        if not entries or len(entries) % 2:
            raise UserError(f"{path}: {split} must be a list of pairs of weight and prefix")
        files = [f"{prefix}.{end}" for prefix in entries[1::2] for end in ("bin", "idx")]
        missing = [file for file in files if not Path(file).is_file()]
        if missing:
            raise UserError(
                f"{path}: {len(missing)} files of {split} do not exist, the first is {missing[0]};"
                " build or pull the corpus again"
            )


def _check_weights(weights: Mapping[str, float], corpora: Mapping[str, Shards]) -> None:
    for corpus, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"blend: weight {weight} of {corpus} must be a finite number >= 0")
        if weight and corpus not in corpora:
            raise UserError(f"blend: no corpus {corpus}; there are {', '.join(sorted(corpora))}")
    if not any(weights.values()):
        raise UserError("blend: no corpus has a weight above 0")


def _tokens(shards: Shards) -> dict[str, int]:
    return {
        split: sum(shard["tokens"] for shard in shards if shard["split"] == split)
        for split in SPLITS
    }


def _shares(
    used: Mapping[str, float], tokens: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Any]]:
    asked = sum(used.values())
    there = sum(tokens[corpus]["train"] for corpus in used)
    return {
        corpus: {
            "weight": weight,
            "requested": weight / asked,
            "tokens": tokens[corpus]["train"],
            "share": tokens[corpus]["train"] / there,
            "absent": [split for split in SPLITS if not tokens[corpus][split]],
        }
        for corpus, weight in used.items()
    }
