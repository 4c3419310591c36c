"""From rows of text to token shards of one part of a corpus.

Which documents are validation and test follows from a seeded hash of (corpus, file, byte
offset): never from parts or shards. Of a corpus whose files have more than `SMALL` bytes a
document is held out when its hash lies below the fraction; of a smaller one, the documents with
the lowest hashes are, exactly round(fraction * documents) of them, at least one, while training
keeps at least one. So twenty documents still have a validation and a test split.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nemoflow import splits, tokenizer
from nemoflow.corpus import Place, Row, SourceFile, read_rows
from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, sha256_of, write_json
from nemoflow.indexed import IndexedWriter, check_fits
from nemoflow.rows import RowCount

SMALL = 32 << 20  # bytes of source files; such a corpus is read whole by each of its jobs
BATCH_DOCUMENTS = 1000
BATCH_CHARACTERS = 2 << 20

Json = dict[str, Any]
SplitOf = Callable[[Place], str]


def tokenize_part(
    plan: Json, part: int, tokenizer_dir: Path, out_dir: Path, settings: Json, cache: Path
) -> Json:
    """Tokenize the shards of one part into `out_dir`/{split}_{shard:05d}.bin and .idx.

    `plan` is that of `make_plan`. `settings`: corpus (its name), source, text_field, dtype,
    add_eos, min_chars, max_tokens (None: no limit; the EOS is kept when a document is cut),
    splits {"valid": fraction, "test": fraction}, seed, max_dropped. Any other key counts as
    something that the bytes follow from.

    A shard is finished when its receipt_{shard:05d}.json is there; one whose receipt matches
    plan, settings and tokenizer, and whose files have the recorded digests, is not made again.
    Anything else in `out_dir` is removed. A split of a shard without documents has no files.

    Returns {"shards": [{"prefix", "split", "sequences", "tokens"}], "rows": {"in", "kept",
    "dropped": {reason: rows}}, "truncated": documents}. UserError when more than max_dropped
    of the rows are faulty (not_json, not_an_object, missing_text, text_not_string, no_tokens;
    empty_text and too_short are filters), or a source file is not the planned one.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    check_fits(tokenizer.vocabulary(tokenizer_dir) - 1, settings["dtype"])
    maker = ShardMaker(plan, tokenizer_dir, settings, cache)
    receipts = []
    for shard, pieces in enumerate(plan["parts"][part]):
        path = out_dir / f"receipt_{shard:05d}.json"
        made_from = maker.made_from(pieces)
        receipt = _finished(path, made_from)
        if receipt is None:
            path.unlink(missing_ok=True)
            receipt = maker.make(pieces, shard, out_dir) | {"made_from": made_from}
            write_json(path, receipt)
        receipts.append(receipt)
    expected = {f"receipt_{shard:05d}.json" for shard in range(len(receipts))}
    expected.update(name for receipt in receipts for name in receipt["files"])
    for path in out_dir.iterdir():
        if path.name not in expected:
            path.unlink()
    return _sum_up(receipts, out_dir, settings["max_dropped"])


def join_parts(parts: list[Json], corpus: str) -> Json:
    """The counts of a corpus from those of its parts, in the same form.

    UserError when nothing is left to train on.
    """
    rows = RowCount()
    for part in parts:
        rows.add(RowCount.of(part["rows"]))
    shards = [shard for part in parts for shard in part["shards"]]
    if not any(shard["split"] == "train" for shard in shards):
        raise UserError(
            f"corpus {corpus}: no document is left to train on, rows: {rows.as_dict()};"
            " look at its text_field and min_chars"
        )
    truncated = sum(part["truncated"] for part in parts)
    return {"shards": shards, "rows": rows.as_dict(), "truncated": truncated}


def document_splits(plan: Json, settings: Json, cache: Path) -> SplitOf:
    """The function from a document's place to train, valid or test; the rule stands above."""
    corpus, seed = settings["corpus"], settings["seed"]
    fractions = {split: settings["splits"][split] for split in ("valid", "test")}
    if not _is_small(plan):
        return lambda place: splits.split_at(splits.point(seed, corpus, *place), fractions)
    points = {}
    for entry in plan["files"]:
        file = SourceFile(**entry)
        for offset, row in read_rows(file, settings["source"], cache, RowCount()):
            if text_of(row, settings)[0] is not None:
                place = Place(file.path, offset)
                points[place] = splits.point(seed, corpus, *place)
    held_out = splits.hold_out(points, fractions)
    return lambda place: held_out.get(place, "train")


def text_of(row: Row, settings: Json) -> tuple[str | None, str]:
    """(text, "") of a row, or (None, the reason to drop it)."""
    name = settings["text_field"]
    if name not in row:
        return None, "missing_text"
    text = row[name]
    if text is not None and not isinstance(text, str):
        return None, "text_not_string"
    if not text or text.isspace():
        return None, "empty_text"
    if len(text) < (settings["min_chars"] or 0):
        return None, "too_short"
    return text, ""


class Encoder:
    """Texts to token ids: no special tokens added but the EOS, cut to a number of tokens."""

    def __init__(self, tokenizer_dir: Path, max_tokens: int | None, add_eos: bool) -> None:
        self._tokenizer = tokenizer.load(tokenizer_dir)
        self._end = [tokenizer.eos_id(tokenizer_dir)] if add_eos else []
        self._limit = max_tokens - len(self._end) if max_tokens else None
        if self._limit is not None and self._limit < 1:
            raise UserError(f"max_tokens {max_tokens} leaves no room for text before the EOS")

    def encode(self, texts: list[str]) -> list[tuple[list[int], bool]]:
        """(ids, whether the text was cut) of each text; no ids where the text has no tokens."""
        encoded = []
        for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False):
            ids = encoding.ids
            cut = self._limit is not None and len(ids) > self._limit
            ids = ids[: self._limit]
            encoded.append((ids + self._end if ids else [], cut))
        return encoded


class ShardMaker:
    """Makes the shards of one plan; the tokenizer is loaded, and the splits are drawn, once."""

    def __init__(self, plan: Json, tokenizer_dir: Path, settings: Json, cache: Path) -> None:
        self._plan, self._settings, self._cache = plan, settings, cache
        self._tokenizer_dir = tokenizer_dir
        self._tokenizer_digest = sha256_of(Path(tokenizer_dir) / "tokenizer.json")

    def made_from(self, pieces: list[Json]) -> str:
        """The digest of all that the bytes of a shard follow from."""
        settings = {k: v for k, v in self._settings.items() if k not in ("max_dropped", "source")}
        files = self._plan["files"] if _is_small(self._plan) else None  # they decide the splits
        return digest([files, pieces, settings, self._tokenizer_digest])

    def make(self, pieces: list[Json], shard: int, out_dir: Path) -> Json:
        """Write the files of a shard; returns its receipt."""
        rows, truncated = RowCount(), 0
        names = {split: f"{split}_{shard:05d}" for split in ("train", "valid", "test")}
        shards = {split: {"sequences": 0, "tokens": 0} for split in names}
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(IndexedWriter(out_dir / name, self._settings["dtype"]))
                for split, name in names.items()
            }
            for places, texts in self._batches(pieces, rows):
                documents: dict[str, list[list[int]]] = {split: [] for split in names}
                for place, (ids, cut) in zip(places, self._encoder.encode(texts), strict=True):
                    if not ids:
                        rows.drop("no_tokens", f"{place.path}, byte {place.offset}")
                        continue
                    documents[self._split_of(place)].append(ids)
                    rows.kept += 1
                    truncated += cut
                for split, batch in documents.items():
                    lengths = np.array([len(ids) for ids in batch], np.int64)
                    flat = np.fromiter(chain.from_iterable(batch), np.int64, lengths.sum())
                    writers[split].add_many(flat, lengths)
                    shards[split]["sequences"] += len(batch)
                    shards[split]["tokens"] += len(flat)
        kept = {name: shards[split] | {"split": split} for split, name in names.items()}
        kept = {name: shard for name, shard in kept.items() if shard["sequences"]}
        files = [f"{name}.{end}" for name in kept for end in ("bin", "idx")]
        return {
            "shards": kept,
            "files": {name: sha256_of(out_dir / name) for name in files},
            "rows": rows.as_dict(),
            "first": rows.first,
            "truncated": truncated,
        }

    @cached_property
    def _encoder(self) -> Encoder:
        settings = self._settings
        return Encoder(self._tokenizer_dir, settings["max_tokens"], settings["add_eos"])

    @cached_property
    def _split_of(self) -> SplitOf:
        return document_splits(self._plan, self._settings, self._cache)

    def _batches(
        self, pieces: list[Json], rows: RowCount
    ) -> Iterator[tuple[list[Place], list[str]]]:
        """The usable texts of a shard, in order, as many at a time as are encoded at once."""
        places, texts, size = [], [], 0
        for place, row in self._rows(pieces, rows):
            text, reason = text_of(row, self._settings)
            if text is None:
                rows.drop(reason, f"{place.path}, byte {place.offset}")
                continue
            places.append(place)
            texts.append(text)
            size += len(text)
            if len(texts) == BATCH_DOCUMENTS or size > BATCH_CHARACTERS:
                yield places, texts
                places, texts, size = [], [], 0
        yield places, texts

    def _rows(self, pieces: list[Json], rows: RowCount) -> Iterator[tuple[Place, Row]]:
        files = {entry["path"]: SourceFile(**entry) for entry in self._plan["files"]}
        for piece in pieces:
            file, span = files[piece["path"]], (piece["start"], piece["end"])
            source = self._settings["source"]
            for offset, row in read_rows(file, source, self._cache, rows, span):
                yield Place(file.path, offset), row


def _is_small(plan: Json) -> bool:
    return sum(file["bytes"] for file in plan["files"]) <= SMALL


def _finished(path: Path, made_from: str) -> Json | None:
    """The receipt, when it is of this very shard and its files have the digests it names."""
    if not path.is_file():
        return None
    receipt = read_json(path)
    intact = receipt["made_from"] == made_from and all(
        (path.parent / name).is_file() and sha256_of(path.parent / name) == sha256
        for name, sha256 in receipt["files"].items()
    )
    return receipt if intact else None


def _sum_up(receipts: list[Json], out_dir: Path, max_dropped: float) -> Json:
    rows = RowCount()
    for receipt in receipts:
        rows.add(RowCount.of(receipt["rows"], receipt["first"]))
    rows.check(max_dropped)
    shards = [
        {"prefix": (out_dir / name).as_posix()} | shard
        for receipt in receipts
        for name, shard in sorted(receipt["shards"].items())
    ]
    truncated = sum(receipt["truncated"] for receipt in receipts)
    return {"shards": shards, "rows": rows.as_dict(), "truncated": truncated}
