"""From rows of text to the token shards of one part of a corpus, and from parts to the corpus."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nemoflow import manifest, tokenizing
from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, write_json
from nemoflow.holdout import HEAD, holdout
from nemoflow.indexed import check_fits
from nemoflow.ledger import Ledger
from nemoflow.tokenizing import Job
from nemoflow.vocabulary import Folder

PERCENTILES = (1, 10, 50, 90, 99)
NOT_ASKED = ("max_dropped", "source")  # settings that no byte follows from
DEFAULTS = {
    "add_bos": False,
    "add_eos": True,
    "min_doc_chars": 0,
    "max_doc_tokens": None,
    "special_tokens": "keep",
    "sample": None,
}

Json = dict[str, Any]


def tokenize_part(
    plan: Json,
    part: int,
    tokenizer_dir: str | Path,
    out_dir: str | Path,
    settings: Json,
    cache: str | Path,
    workers: int = 1,
) -> Json:
    """Tokenize the shards of one part into `out_dir`/{split}_{shard:05d}.bin and .idx.

    `plan` is that of `make_plan`. `settings`: corpus (its name), source, text_field, dtype, splits
    {"valid": fraction, "test": fraction}, seed, max_dropped, and those of `DEFAULTS`. `workers`
    processes share the work; no byte follows from their number.

    A shard whose receipt_{shard:05d}.json matches plan, settings and tokenizer, and whose files
    have the recorded digests, is not made again. Anything else in `out_dir` is removed.

    Returns what `sum_up` does.

    Raises:
        UserError: more than max_dropped of the rows are faulty, a source file is not the planned
            one or not whole, or the disk is full.
    """
    out_dir, folder, settings = Path(out_dir), Folder(tokenizer_dir), DEFAULTS | settings
    check_fits(folder.size - 1, settings["dtype"])
    shards = [with_sizes(pieces, plan) for pieces in plan["parts"][part]]
    made_from = [origin(pieces, plan, settings, folder) for pieces in shards]
    receipts = kept(out_dir, made_from)

    def done(shard: int, receipt: Json) -> None:
        receipts[shard] = receipt | {"made_from": made_from[shard]}
        write_json(receipt_path(out_dir, shard), receipts[shard])

    if pending := {n: pieces for n, pieces in enumerate(shards) if n not in receipts}:
        split = holdout(plan, part, settings, settings["source"], Path(cache))
        tokenizing.make(Job(out_dir, folder, settings, split, Path(cache)), pending, workers, done)
    empty = [file["path"] for file in plan["files"] if not (part or file["bytes"])]
    return sum_up([receipts[n] for n in range(len(shards))], empty, out_dir, settings)


def with_sizes(pieces: list[Json], plan: Json) -> list[Json]:
    """The pieces of a shard, each with the stored size of its file."""
    sizes = {file["path"]: file["bytes"] for file in plan["files"]}
    return [{**piece, "bytes": sizes[piece["path"]]} for piece in pieces]


def origin(pieces: list[Json], plan: Json, settings: Json, folder: Folder) -> str:
    """The digest of all that the bytes of a shard follow from.

    Where it lies among the corpus's first bytes, its splits follow from all files there.
    """
    begin, head = 0, []
    for file in plan["files"]:
        if begin < HEAD:
            head.append(file)
        begin += file["bytes"]
    inside = {file["path"] for file in head}.intersection(piece["path"] for piece in pieces)
    asked = {key: value for key, value in settings.items() if key not in NOT_ASKED}
    return digest([head if inside else [], pieces, asked, folder.digest])


def receipt_path(out_dir: Path, shard: int) -> Path:
    """Where it says what a shard was made from, and what is in it."""
    return out_dir / f"receipt_{shard:05d}.json"


def finished(path: Path, made_from: str) -> Json | None:
    """The receipt, when it is of this very shard and its files have the digests it names."""
    if not path.is_file():
        return None
    receipt = read_json(path)
    intact = receipt.get("made_from") == made_from and all(
        (path.parent / name).is_file() and manifest.md5_of(path.parent / name) == md5
        for name, md5 in receipt["files"].items()
    )
    return receipt if intact else None


def kept(out_dir: Path, made_from: list[str]) -> dict[int, Json]:
    """The receipts of a part's finished shards; everything else in its folder is removed."""
    out_dir.mkdir(parents=True, exist_ok=True)
    found = {
        shard: receipt
        for shard, origin_ in enumerate(made_from)
        if (receipt := finished(receipt_path(out_dir, shard), origin_))
    }
    expected = {receipt_path(out_dir, shard).name for shard in found}
    expected.update(name for receipt in found.values() for name in receipt["files"])
    for path in out_dir.iterdir():
        if path.name not in expected:
            path.unlink()
    return found


def digests(out_dir: str | Path) -> dict[str, str]:
    """{name: md5} of the shards' files in a finished part, as taken when they were written."""
    receipts = map(read_json, Path(out_dir).glob("receipt_*.json"))
    return {name: md5 for receipt in receipts for name, md5 in receipt["files"].items()}


def sum_up(receipts: list[Json], empty: list[str], out_dir: Path, settings: Json) -> Json:
    """What a part's manifest says; UserError where too many rows could not be used.

    {"shards": [{"prefix", "split", "sequences", "tokens"}], "truncated": documents, "lengths":
    [[tokens, documents], ...]} and the ledger's facts. `empty` are files that no shard has a piece
    of; the first part tells of them.
    """
    ledger, lengths = Ledger(), Counter()
    for path in empty:
        ledger.see(path)
    for receipt in receipts:
        ledger.add(Ledger.of(receipt["ledger"]))
        lengths.update(dict(receipt["lengths"]))
    ledger.check(settings["corpus"], settings["max_dropped"])
    shards = [
        {"prefix": (out_dir / name).as_posix()} | shard
        for receipt in receipts
        for name, shard in sorted(receipt["shards"].items())
    ]
    truncated = sum(receipt["truncated"] for receipt in receipts)
    pairs = sorted([length, count] for length, count in lengths.items())
    return {"shards": shards, "truncated": truncated, "lengths": pairs} | ledger.facts()


def join_parts(parts: list[Json], corpus: str) -> Json:
    """The counts of a corpus from those of its parts; of `lengths` the extremes and percentiles.

    UserError when nothing is left to train on.
    """
    ledger, lengths = Ledger(), Counter()
    for part in parts:
        told = {"files": part["by_file"], "first": part["first"], "noted": part["noted"]}
        ledger.add(Ledger.of(told))
        lengths.update({length: count for length, count in part["lengths"]})
    shards = [shard for part in parts for shard in part["shards"]]
    if not any(shard["split"] == "train" for shard in shards):
        raise UserError(
            f"corpus {corpus}: no document is left to train on, rows:"
            f" {ledger.totals(ledger.rows)}; look at its text_field and min_doc_chars"
        )
    truncated = sum(part["truncated"] for part in parts)
    found = {"shards": shards, "truncated": truncated, "lengths": described(lengths)}
    return found | ledger.facts()


def described(lengths: Mapping[int, int]) -> dict[str, float]:
    """Shortest, longest and mean length of documents in tokens, and exact percentiles.

    Percentile p is the shortest length that p in a hundred documents do not exceed.
    """
    values = np.array(sorted(lengths), np.int64)
    counts = np.array([lengths[value] for value in values.tolist()], np.int64)
    below = np.cumsum(counts)
    found = {
        f"p{p}": int(values[np.searchsorted(below, -(-int(below[-1]) * p // 100))])
        for p in PERCENTILES
    }
    mean = round(float(values @ counts / below[-1]), 1)
    return {"shortest": int(values[0]), "longest": int(values[-1]), "mean": mean, **found}
