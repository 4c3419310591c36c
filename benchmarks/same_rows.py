"""Whether two folders of packed rows hold the same sequences: ids, and what of them is trained.

Our rule encodes the text after a generation prompt on its own, as a model goes on from it; the
peer encodes conversations whole, and where reasoning begins with a line break joins it with the
prompt's own into one token. Those sequences must be the same as text.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from nemoflow.errors import UserError
from nemoflow.vocabulary import Folder

Key = tuple[bytes, bytes]


class Compared(NamedTuple):
    """How many sequences are equal, and how many as text alone."""

    equal: int
    joined: int


def compare(ours: Path, theirs: Path, tokenizer: Path) -> Compared:
    """Compare packed rows of ours with trl's; UserError where any sequence differs."""
    folder = Folder(tokenizer)
    think, newline = folder.huggingface.encode("<think>\n", add_special_tokens=False).ids
    mine, alike, joined = Counter(of_ours(ours)), Counter[Key](), Counter[Key]()
    for key in of_trl(theirs):
        ids = np.frombuffer(key[0], np.int32)
        after = ids[1:][ids[:-1] == think]
        (joined if joins(folder, after, newline) else alike)[key] += 1
    if missing := alike - mine:
        raise UserError(f"{missing.total()} sequences of {theirs} are not in {ours}")
    left = mine - alike
    if left.total() != joined.total():
        raise UserError(f"{left.total()} sequences of {ours}, {joined.total()} of {theirs} differ")
    for one, other in zip(texts(folder, left), texts(folder, joined), strict=True):
        length = min(len(one), len(other))  # a long one is cut at a token
        if one[:length] != other[:length]:
            raise UserError(f"{ours} and {theirs} hold different text: {one[:200]!r}")
    return Compared(alike.total(), joined.total())


def joins(folder: Folder, after: np.ndarray, newline: int) -> bool:
    """Whether one of the tokens after think tags is a line break and more."""
    others = {int(token) for token in after} - {newline}
    return any(folder.huggingface.decode([token]).startswith("\n") for token in others)


def texts(folder: Folder, keys: Counter[Key]) -> list[str]:
    """The text of sequences in alphabetical order, half of a character at an end left out."""
    lists = [np.frombuffer(ids, np.int32).tolist() for ids, _ in keys.elements()]
    decoded = folder.huggingface.decode_batch(lists, skip_special_tokens=False)
    return sorted(text.rstrip("\ufffd") for text in decoded)


def of_ours(folder: Path) -> Iterator[Key]:
    """The sequences of our rows, the mask already that of the token to predict."""
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(64):
            for row in batch.to_pylist():
                ids, mask = np.array(row["input_ids"], "<i4"), np.array(row["loss_mask"], np.uint8)
                edges = [*row["seq_start_id"], len(ids)]
                for start, end in zip(edges, edges[1:], strict=False):
                    yield ids[start:end].tobytes(), mask[start:end].tobytes()


def of_trl(path: Path) -> Iterator[Key]:
    """The sequences of trl's rows that train something, the mask moved to what predicts."""
    for batch in pq.ParquetFile(path).iter_batches(64):
        for row in batch.to_pylist():
            ids = np.array(row["input_ids"], "<i4")
            mask = np.array(row["assistant_masks"], np.uint8)
            edges = np.concatenate([[0], np.cumsum(row["seq_lengths"])])
            for start, end in zip(edges, edges[1:], strict=False):
                moved = np.append(mask[start + 1 : end], np.uint8(0))
                if moved.any():
                    yield ids[start:end].tobytes(), moved.tobytes()
