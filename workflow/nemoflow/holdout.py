"""Which documents of a corpus are validation and test.

It follows from a seeded hash of (corpus, file, place in the file), never from parts or shards. Of
the documents at a corpus's beginning (its first `HEAD` stored bytes, and of them no more than
`HEAD` bytes of kept rows) those with the lowest hashes are held out: exactly their fraction, at
least one for each split, while training keeps at least one. So a corpus of twenty documents has all
splits, and so has a large one of few or long documents. What comes after is held out where its hash
lies below the fraction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nemoflow import splits
from nemoflow.blocks import file_of, units
from nemoflow.text_rows import Rows

SPLITS = ("train", "valid", "test")
HEAD = 8 << 20  # bytes, from a corpus's beginning


@dataclass
class Holdout:
    """The splits of a corpus's documents.

    `head` has, by file, the place before which documents are held out by name: {file: {place:
    split}} of those is `chosen`.
    """

    seed: int
    corpus: str
    fractions: Mapping[str, float]
    head: dict[str, int] = field(default_factory=dict)
    chosen: dict[str, dict[int, str]] = field(default_factory=dict)

    def codes(self, path: str, offsets: np.ndarray) -> np.ndarray:
        """The split of documents of a file, int8[offsets], as places in `SPLITS`."""
        points = splits.points(self.seed, self.corpus, path, offsets)
        codes, bound = np.zeros(len(offsets), np.int8), 0.0
        for code, split in enumerate(SPLITS[1:], start=1):
            bound += self.fractions[split]
            codes[(codes == 0) & (points < bound * splits.POINTS)] = code
        inside = offsets < self.head.get(path, 0)
        if inside.any():
            named = self.chosen.get(path, {})
            known = [SPLITS.index(named.get(place, "train")) for place in offsets[inside].tolist()]
            codes[inside] = known
        return codes


def holdout(
    plan: Mapping[str, Any], part: int, settings: Mapping[str, Any], source: dict, cache: Path
) -> Holdout:
    """The splits of a corpus, as far as a part of its plan needs them.

    Only a part that has a share of the corpus's first `HEAD` stored bytes reads its head.
    """
    fractions = {split: settings["splits"][split] for split in SPLITS[1:]}
    found = Holdout(settings["seed"], settings["corpus"], fractions)
    begins, begin = {}, 0
    for file in plan["files"]:
        begins[file["path"]] = begin
        begin += file["bytes"]
    starts = [begins[p["path"]] + p["start"] for shard in plan["parts"][part] for p in shard]
    if starts and min(starts) < HEAD:
        read_head(found, plan["files"], settings, source, cache)
    return found


def read_head(
    found: Holdout, files: list[dict], settings: Mapping[str, Any], source: dict, cache: Path
) -> None:
    """Read the documents at a corpus's beginning, and choose of them."""
    rows = Rows(settings["text_field"], settings["min_doc_chars"], settings.get("sample"))
    pieces = head_pieces(files)
    points: dict[tuple[str, int], int] = {}
    left = HEAD
    for unit in units(pieces, source, cache, rows):
        block = unit()
        places = block.offsets[np.cumsum(block.sizes) - block.sizes < left]
        hashed = splits.points(found.seed, found.corpus, block.path, places)
        names = [(block.path, place) for place in places.tolist()]
        points.update(zip(names, hashed.tolist(), strict=True))
        if names:
            found.head[block.path] = names[-1][1] + 1
        left -= int(block.sizes.sum())
        if left <= 0:
            break
    for (path, place), split in splits.hold_out(points, found.fractions).items():
        found.chosen.setdefault(path, {})[place] = split


def head_pieces(files: list[dict]) -> list[dict]:
    """What begins in the first `HEAD` stored bytes: the parts that have it read it, no others."""
    pieces, begin = [], 0
    for file in files:
        if file["bytes"] and begin < HEAD:
            end = file["bytes"] if file_of(file).compressed else min(file["bytes"], HEAD - begin)
            pieces.append({**file, "start": 0, "end": end})
        begin += file["bytes"]
    return pieces
