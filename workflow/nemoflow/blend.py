"""The blend file of a phase: which shards, with which weight, in which split."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError
from nemoflow.files import read_json

SPLITS = ("train", "valid", "test")
Shards = list[dict[str, Any]]


def make_blend(weights: Mapping[str, float], corpora: Mapping[str, Shards]) -> dict[str, list[str]]:
    """The blend of Megatron-Bridge's `per_split_data_args_path`.

    `weights` are relative, by corpus; a corpus of weight 0 takes no part. `corpora` are the
    shards {"prefix", "split", "tokens"} of each. A shard weighs its corpus's weight times its
    share of the corpus's tokens in that split, so that every token of a corpus is as likely;
    where shards have a "weight" of their own (an imported blend), its share of these. A corpus
    without documents in valid or test is left out of that list, and a shard without tokens.

    Returns {"train": [weight, prefix, ...], "valid": ..., "test": ...}, all strings, corpora in the
    order of their names whatever that of the weights. UserError
    for an unknown corpus, a weight that is negative or not finite, a corpus without training
    tokens, or a split that no corpus has: Megatron refuses an empty list.
    """
    _check_weights(weights, corpora)
    used = {corpus: float(weight) for corpus, weight in sorted(weights.items()) if weight}
    blend: dict[str, list[str]] = {split: [] for split in SPLITS}
    for corpus, weight in used.items():
        for split in SPLITS:
            for shard, share in shares(corpora[corpus], split):
                blend[split] += [repr(weight * share), str(shard["prefix"])]
        if not any(shares(corpora[corpus], "train")):
            raise UserError(f"blend: corpus {corpus} has no training tokens; set its weight to 0")
    for split in SPLITS:
        if not blend[split]:
            raise UserError(
                f"blend: no corpus of {', '.join(used)} has a document in its {split} split, and"
                f" Megatron refuses an empty one; raise splits.{split} of a corpus above 0, or add"
                " one that has it"
            )
    return blend


def shares(shards: Shards, split: str) -> list[tuple[dict[str, Any], float]]:
    """The shards of a split that hold tokens and weigh something, and each one's share."""
    there = [shard for shard in shards if shard["split"] == split and shard["tokens"]]
    weighed = [(shard, shard.get("weight", shard["tokens"])) for shard in there]
    total = math.fsum(weight for _, weight in weighed)
    return [(shard, weight / total) for shard, weight in weighed if weight]


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
