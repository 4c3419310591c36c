"""Existing bin/idx shards as a corpus: whether they are whole, their copy, and what they hold.

The layout of the files is told in `nemoflow.indexed`; here one document may be several sequences,
as Megatron allows.
"""

import os
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from nemoflow import imports
from nemoflow.blend import SPLITS
from nemoflow.import_check import Index, blocks, check_ids, check_index
from nemoflow.import_paths import Shard, find
from nemoflow.progress import Bytes, in_bytes, say
from nemoflow.tokens import described

FOLDER = "imported"  # blends and engines read the corpus from {corpus}/{folder}/{shard}


def take(written: str, dtype: str, vocabulary: int, folder: Path, payload: Path) -> dict[str, Any]:
    """Copy the shards at a path as the user wrote it into `folder`, once they are checked.

    Returns what the manifest tells of them when they lie in `payload`.

    Raises:
        UserError: as `find`, `check` and `copy` do; `folder` is removed then.
    """
    with ExitStack() as failed:
        failed.callback(shutil.rmtree, folder, ignore_errors=True)
        shards = find(written)
        indices = check(shards, dtype, vocabulary)
        facts = facts_of(shards, indices, copy(shards, indices, folder), payload)
        failed.pop_all()
    return facts


def check(shards: list[Shard], dtype: str, vocabulary: int) -> list[Index]:
    """The indices of shards, once every pair is known to be whole; nothing is written.

    `dtype` is that of the tokenizer's file; every id is read, and is below `vocabulary`.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    indices = [check_index(*shard.files(), dtype) for shard in shards]
    with Bytes("checking ids", sum(index.size for index in indices)) as progress:
        for index in indices:
            check_ids(index, vocabulary, progress)
    return indices


def copy(shards: list[Shard], indices: list[Index], folder: Path) -> list[str]:
    """Copy checked shards into `folder`/imported/{split}_{number}; their names below `folder`.

    Raises:
        UserError: a file changed meanwhile.
    """
    counts, names = dict.fromkeys(SPLITS, 0), []
    total = sum(file.stat().st_size for shard in shards for file in shard.files())
    say(f"copying {len(shards)} shards, {in_bytes(total)}")
    (folder / FOLDER).mkdir()
    with Bytes("copying", total) as progress:
        for shard, index in zip(shards, indices, strict=True):
            names.append(f"{FOLDER}/{shard.split}_{counts[shard.split]:05d}")
            counts[shard.split] += 1
            for file in shard.files():
                for size in imports.copied(file, folder / f"{names[-1]}{file.suffix}"):
                    progress.add(size)
            index.refuse_changed()
    return names


def facts_of(
    shards: list[Shard], indices: list[Index], names: list[str], payload: Path
) -> dict[str, Any]:
    """What the manifest tells: the shards, their rows, and how long sequences are."""
    given = [os.path.abspath(shard.prefix) for shard in shards]
    root = os.path.commonpath([os.path.dirname(prefix) for prefix in given])
    sequences = sum(len(index.lengths) for index in indices)
    told = [
        {
            "prefix": (payload / name).as_posix(),
            "split": shard.split,
            "sequences": len(index.lengths),
            "tokens": index.tokens,
            "from": os.path.relpath(prefix, root),
            **({} if index.documents == len(index.lengths) else {"documents": index.documents}),
            **({} if shard.weight is None else {"weight": shard.weight}),
        }
        for shard, prefix, index, name in zip(shards, given, indices, names, strict=True)
    ]
    rows = {"in": sequences, "kept": sequences, "dropped": {}}
    return {"shards": told, "rows": rows, "lengths": lengths_of(indices)}


def lengths_of(indices: list[Index]) -> dict[str, float]:
    """How long sequences are, in tokens."""
    counts: Counter[int] = Counter()
    for index in indices:
        for block in blocks(len(index.lengths)):
            found, times = np.unique(index.lengths[block], return_counts=True)
            counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
    return described(counts)
