"""Rows of a mixture as text, what is trained apart: packed ones, or a source's own, rendered now.

Only the tokenizer's bytes are needed, and those that are shown.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from nemoflow import corpus, manifest, shown, specs
from nemoflow.chat import Renderer, Sequence
from nemoflow.config import Config
from nemoflow.config.messages import nearest
from nemoflow.errors import UserError
from nemoflow.products import PATHS
from nemoflow.rendering import Batch
from nemoflow.vocabulary import Folder

CACHE = Path("results/data/sources")


class Packed(NamedTuple):
    """A packed row: token ids int32[n], mask uint8[n] of what they predict, starts int32[k]."""

    ids: np.ndarray
    mask: np.ndarray
    starts: np.ndarray


def packed(config: Config, mixture: str, number: int, split: str, colour: bool) -> Iterator[str]:
    """Row `number`, from 1, of a split of the packed rows, its sequences one after the other.

    Raises:
        UserError: nothing is built, its bytes are elsewhere, or there are not so many rows.
    """
    model = config.data("mixtures", mixture)
    path = PATHS["pack"].format(mixture=mixture)
    file, row = found(here(path) / split, number, f"{split} of {mixture}")
    folder = tokenizer(model.tokenizer)
    sequences = list(of_row(row, model.pad_multiple, folder.eos))
    padding = len(row.ids) - sum(len(sequence.ids) for sequence in sequences)
    if manifest.read(path)["identity"] != specs.of(config, "pack", {"mixture": mixture}).identity:
        yield "built from another config; to be made again"
    yield f"row {number:,} of {split} of {mixture} ({file.name})"
    yield f"{told(sequences)}, {padding} of padding; what is trained is {shown.legend(colour)}"
    yield from texts(folder, sequences, colour)


def of_source(
    config: Config, mixture: str, source: str, number: int, colour: bool
) -> Iterator[str]:
    """Row `number`, from 1, of a source's files, as it is rendered now; or why it is not.

    That another row has the same id is not seen.

    Raises:
        UserError: there is no such source, or it has not so many rows.
    """
    model = config.data("mixtures", mixture)
    if source not in model.sources:
        raise UserError(f"mixture {mixture}: {nearest('source', source, list(model.sources))}")
    folder = tokenizer(model.tokenizer)
    wildcards = {"mixture": mixture, "source": source}
    settings = specs.of(config, "render", wildcards).identity
    listed = corpus.pin(settings["source"] | pinned(PATHS["render"].format(**wildcards)))
    batch, where = unread(listed, number, f"{source} of {mixture}")
    made = Renderer(folder, settings).render(batch.file.path, batch.rows)
    yield f"row {number:,} of {source} of {mixture}: {where}"
    if drop := made.dropped.get(0):
        yield f"dropped: {': '.join(filter(None, drop))}"
        return
    noted = made.noted.get(0, ())
    sequences = made.kept[0]
    yield f"{', '.join([told(sequences), *noted])}; what is trained is {shown.legend(colour)}"
    yield from texts(folder, sequences, colour)


def pinned(path: str) -> dict[str, Any]:
    """The commit from which a source was rendered, if it was."""
    return manifest.read(path)["pinned"] if Path(path).exists() else {}


def tokenizer(name: str) -> Folder:
    """A tokenizer's folder."""
    return Folder(here(PATHS["tokenizer"].format(tokenizer=name)))


def here(path: str) -> Path:
    """The bytes of a product; UserError where it is not built, or they are elsewhere."""
    if not Path(path).exists():
        raise UserError(
            f"{path} is not built; build it:\n  snakemake --profile profiles/local {path}"
        )
    if not (folder := manifest.payload(path)).is_dir():
        raise UserError(f"{folder} is not here; fetch it:\n  python -m nemoflow pull {path}")
    return folder


def found(folder: Path, number: int, name: str) -> tuple[Path, Packed]:
    """The file of row `number`, from 1, of a folder of packed Parquet, and the row."""
    before = 0
    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if before < number <= before + rows:
                    table = file.read_row_group(group, ["input_ids", "loss_mask", "seq_start_id"])
                    row = table.slice(number - before - 1, 1)
                    return path, Packed(*(column.chunk(0).flatten().to_numpy() for column in row))
                before += rows
    there = f"rows 1 to {before:,}" if before else "no rows"
    raise UserError(f"row {number:,}: {name} has {there}")


def of_row(row: Packed, pad_multiple: int, eos: int) -> Iterator[Sequence]:
    """The sequences of a packed row without padding, the mask again of the token itself.

    Padding is of the EOS, not trained, and less than `pad_multiple` tokens.
    """
    for start, end in pairwise([*row.starts.tolist(), len(row.ids)]):
        ids, mask = row.ids[start:end], np.zeros(end - start, np.uint8)
        mask[1:] = row.mask[start : end - 1]
        kept = np.flatnonzero((ids != eos) | (mask > 0))
        length = max(kept[-1] + 1 if len(kept) else 1, len(ids) - pad_multiple + 1)
        yield Sequence(ids[:length], mask[:length])


def unread(source: corpus.Source, number: int, name: str) -> tuple[Batch, str]:
    """Row `number`, from 1, of a source's files, alone, and where it lies."""
    seen = 0
    for file in corpus.list_files(source, CACHE):
        for place, row in corpus.unread(file, source, CACHE):
            seen += 1
            if seen == number:
                where = corpus.numbered(file, source, CACHE, place)
                return Batch(file, [(place, row)]), f"{file.path}, {where}"
    raise UserError(f"row {number:,}: {name} has rows 1 to {seen:,}")


def told(sequences: list[Sequence]) -> str:
    """How much it is."""
    tokens = sum(len(sequence.ids) for sequence in sequences)
    trained = sum(int(sequence.mask.sum()) for sequence in sequences)
    count = f"{len(sequences)} sequence{'s' * (len(sequences) > 1)}"
    return f"{count}, {tokens:,} tokens, {trained:,} trained"


def texts(folder: Folder, sequences: list[Sequence], colour: bool) -> Iterator[str]:
    """Each sequence under its number."""
    for number, (ids, mask) in enumerate(sequences, start=1):
        yield ""
        yield f"{number} of {len(sequences)}: {told([Sequence(ids, mask)]).partition(', ')[2]}"
        yield shown.marked(folder, ids, mask, colour).removesuffix("\n")
