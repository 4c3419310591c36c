"""The texts that stages train on, as their products hold them, a piece of a product at a time."""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from nemoflow import jsonl, prompt_rows
from nemoflow.decoding import Decoder
from nemoflow.errors import UserError
from nemoflow.indexed import IndexedReader
from nemoflow.parquet import naming

ROW_BYTES = 16 << 20  # of rows of prompts in a piece
ROLE = re.compile(r"(system|user|assistant|tool)\n")  # how a template begins a message

Json = dict[str, Any]


class Text(NamedTuple):
    """A document, a conversation or a row: its texts, and in words where it stands."""

    texts: list[str]
    where: Callable[[], str]


class Piece(NamedTuple):
    """A shard of tokens (no span), a row group of packed rows, or a range of bytes of prompts."""

    kind: str
    path: str
    span: tuple[int, int] | None = None

    def texts(self, decoder: Decoder | None) -> Iterator[Text]:
        """What stands in it, in order; prompts are text as they are, and need no decoder."""
        return READERS[self.kind](self, decoder)


def pieces(kind: str, product: Mapping[str, Any], folder: Path) -> Iterator[Piece]:
    """The pieces of the training split of a product, from its manifest and its bytes.

    `kind`: tokens, packed or prompts.
    """
    if kind == "tokens":
        shards = [shard for shard in product["shards"] if shard["split"] == "train"]
        yield from (Piece(kind, shard["prefix"]) for shard in shards if shard["tokens"])
    elif kind == "packed":
        for path in sorted((folder / "train").glob("*.parquet")):
            with pq.ParquetFile(path) as file:
                groups = file.num_row_groups
            yield from (Piece(kind, path.as_posix(), (i, i + 1)) for i in range(groups))
    elif (path := folder / "train.jsonl").exists():  # evaluations have no such rows
        size = path.stat().st_size
        for begin in range(0, size, ROW_BYTES):
            yield Piece(kind, path.as_posix(), (begin, min(begin + ROW_BYTES, size)))


def _documents(piece: Piece, decoder: Decoder) -> Iterator[Text]:
    reader = IndexedReader(piece.path)
    for number in range(len(reader)):
        found = decoder.texts(reader.document(number))
        yield Text(found, lambda number=number: f"{piece.path}, document {number + 1}")


def _conversations(piece: Piece, decoder: Decoder) -> Iterator[Text]:
    """The sequences of packed rows; the name of a role in front of a message is no text."""
    with open(piece.path, "rb") as opened, naming(opened), pq.ParquetFile(opened) as file:
        first, _ = piece.span
        row = sum(file.metadata.row_group(group).num_rows for group in range(first))
        for batch in file.iter_batches(
            64, row_groups=[first], columns=["input_ids", "seq_start_id"]
        ):
            for ids, starts in zip(*batch.columns, strict=True):
                row, tokens = row + 1, ids.values.to_numpy()
                edges = [*starts.values.to_numpy().tolist(), len(tokens)]
                for number, (start, end) in enumerate(pairwise(edges), start=1):
                    said = decoder.texts(tokens[start:end])
                    place = f"{piece.path}, row {row}, sequence {number}"
                    yield Text(
                        [ROLE.sub("", s, count=1) if ROLE.match(s) else s for s in said],
                        lambda place=place: place,
                    )


def _rows(piece: Piece, _: Decoder | None) -> Iterator[Text]:
    """The rows of prompts: what is asked, and of pairs both answers."""
    with open(piece.path, "rb") as file:
        for offset, line in jsonl.lines(file, piece.path, piece.span):
            row, fault = jsonl.parse(line)
            if fault:
                raise UserError(f"{piece.path}: byte {offset}: {fault}; build the prompts again")
            answers = prompt_rows.strings(row.get("completions"))
            yield Text([*prompt_rows.texts(row), *answers], lambda at=offset: _row(piece.path, at))


def _row(path: str, offset: int) -> str:
    with open(path, "rb") as file:
        return f"{path}, row {jsonl.line_number(file, path, offset)}"


READERS = {"tokens": _documents, "packed": _conversations, "prompts": _rows}
