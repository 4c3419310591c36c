"""Processes that make the shards of a part together, one team of them for each shard at a time.

A process of a team claims blocks, encodes them, and writes their tokens where they belong; what it
knows of a block it tells the parent. No token passes from one process to another.
"""

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nemoflow.blocks import Unit
from nemoflow.documents import Documents, Encoded
from nemoflow.errors import MACHINE, UserError
from nemoflow.turns import Turns

MOST_WAITING = 64 << 20  # bytes of ids that a process holds while other blocks come first
CONTEXT = get_context("fork")  # a loaded tokenizer is shared until somebody writes to it
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class Told(NamedTuple):
    """What a process tells of a block that it has written: `sizes` bytes in each file."""

    shard: int
    number: int
    sizes: list[int]
    lengths: list[np.ndarray]
    truncated: int
    ledger: Any


class End(NamedTuple):
    """A shard has `blocks` blocks, and this process has written all of its own."""

    shard: int
    blocks: int


class Wrong(NamedTuple):
    """A process stops for what the user can mend."""

    text: str


@dataclass
class Shard:
    """A shard to be made: its number, how to read its blocks, and its files (.bin, one a split)."""

    number: int
    units: Callable[[], Iterator[Unit]]
    files: list[Path]
    turns: Turns


def work(shards: list[Shard], documents: Documents, dtype: np.dtype, out: Connection) -> None:
    """The life of a process: its part of each shard, in order, and nothing left to say after."""
    die_with_parent()
    try:
        for shard in shards:
            out.send(End(shard.number, make(shard, documents, dtype, out)))
    except UserError as error:
        out.send(Wrong(str(error)))
    except OSError as error:
        if error.errno not in MACHINE:
            raise
        place = error.filename or shards[0].files[0].parent
        out.send(Wrong(f"{MACHINE[error.errno]}: {place}; mend that, and start again"))
    finally:
        out.close()


def make(shard: Shard, documents: Documents, dtype: np.dtype, out: Connection) -> int:
    """Encode and write this process's blocks of a shard; how many blocks the shard has."""
    waiting: deque[tuple[int, Encoded, list[np.ndarray]]] = deque()
    held, blocks, mine = 0, 0, shard.turns.claim()
    with ExitStack() as opened:
        files = [opened.enter_context(open(path, "r+b", buffering=0)) for path in shard.files]

        def settle(most: int) -> None:
            """Write blocks whose turn it is; wait for it while more than `most` bytes are held."""
            nonlocal held
            while waiting:
                number, encoded, ids = waiting[0]
                sizes = [each.nbytes for each in ids]
                offsets = shard.turns.place(number, sizes, wait=held > most)
                if offsets is None:
                    return
                for file, offset, each in zip(files, offsets, ids, strict=True):
                    write_at(file.fileno(), each, offset)
                held -= sum(sizes)
                waiting.popleft()
                told = Told(
                    shard.number, number, sizes, encoded.lengths, encoded.truncated, encoded.ledger
                )
                out.send(told)

        for blocks, unit in enumerate(shard.units(), start=1):
            if blocks - 1 != mine:
                continue
            encoded = documents.encode(unit())
            ids = [each.astype(dtype, copy=False) for each in encoded.ids]
            waiting.append((mine, encoded._replace(ids=[]), ids))
            held += sum(each.nbytes for each in ids)
            settle(MOST_WAITING)
            documents.encoder.rest()
            mine = shard.turns.claim()
        settle(-1)
    return blocks


def write_at(file: int, ids: np.ndarray, offset: int) -> None:
    """Write all ids at an offset in bytes."""
    content = memoryview(np.ascontiguousarray(ids)).cast("B")
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written


def die_with_parent() -> None:
    """End this process when its parent does, however that ends; only Linux knows how."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent_process().pid:  # it died before it was asked
        os._exit(1)
