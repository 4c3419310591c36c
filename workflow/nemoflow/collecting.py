"""The parent's side of a team: what its processes tell of a shard becomes an index and digests.

The digests are taken while the shard is being written, of what lies in order from its beginning:
the pages are still in memory then.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from nemoflow.errors import UserError
from nemoflow.ledger import Ledger
from nemoflow.workers import End, Told, Wrong

CHUNK = 256 << 10  # bytes hashed at a time, so few that they stay in the processor's cache
FLUSH = 64 << 20  # bytes after which what was written is sent on to the disk


@dataclass
class Growing:
    """A file that is being written: its digest up to `done` bytes."""

    path: Path
    md5: Any = field(default_factory=hashlib.md5)
    done: int = 0
    flushed: int = 0

    def follow(self, size: int) -> None:
        """Take in the next bytes, all of them written."""
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.done)
            self.done += size
            block = memoryview(bytearray(min(size, CHUNK)))
            while size:
                if not (got := file.readinto(block[:size])):
                    raise UserError(f"{self.path}: shorter than what was written to it")
                self.md5.update(block[:got])
                size -= got
            if self.done - self.flushed > FLUSH:  # so that the last flush finds little to do
                os.fdatasync(file.fileno())
                self.flushed = self.done


@dataclass
class Collected:
    """What is known of a shard: its files, the lengths int32[documents] of each, its counts.

    `blocks` is how many it has, `ended` how many processes are through it.
    """

    files: list[Growing]
    lengths: list[list[np.ndarray]] = field(default_factory=lambda: [[], [], []])
    ledger: Ledger = field(default_factory=Ledger)
    truncated: int = 0
    blocks: int | None = None
    ended: int = 0
    next: int = 0
    early: dict[int, Told] = field(default_factory=dict)

    def add(self, told: Told) -> None:
        """Take in a block, and those after it that came before their time."""
        self.early[told.number] = told
        while told := self.early.pop(self.next, None):
            for file, size in zip(self.files, told.sizes, strict=True):
                if size:
                    file.follow(size)
            for lengths, more in zip(self.lengths, told.lengths, strict=True):
                lengths.append(more)
            self.ledger.add(told.ledger)
            self.truncated += told.truncated
            self.next += 1

    @property
    def whole(self) -> bool:
        """Whether every block was taken in."""
        return self.blocks is not None and self.next == self.blocks


def collect(
    pipes: list[Connection],
    shards: dict[int, Collected],
    finish: Callable[[int, Collected], None],
    progress: Callable[[int], None],
) -> None:
    """Hear the processes of a team to their end, and `finish` each shard when all are through it.

    One that is slow to start still opens the files of a shard that the others have made whole, so
    these keep their names until then. `progress` is told the bytes of the rows that are done.

    Raises:
        UserError: a process stopped for what the user can mend, or was killed.
    """
    for told in heard(pipes, len(shards)):
        shard = shards[told.shard]
        if isinstance(told, End):
            shard.blocks, shard.ended = told.blocks, shard.ended + 1
        else:
            shard.add(told)
            progress(sum(told.ledger.bytes.values()))
        if shard.whole and shard.ended == len(pipes):
            finish(told.shard, shard)


def heard(pipes: list[Connection], shards: int) -> Iterator[Told | End]:
    """What processes say, as it comes, until each has ended its part of so many shards."""
    missing = dict.fromkeys(pipes, shards)
    while missing:
        for pipe in wait(list(missing)):
            told = hear(pipe)
            if isinstance(told, Wrong):
                raise UserError(told.text)
            missing[pipe] -= isinstance(told, End)
            if not missing[pipe]:
                del missing[pipe]
            yield told


def hear(pipe: Connection) -> Any:
    """The next thing that a process says; UserError where it has ended, or ends in the middle."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        raise UserError(
            "a process that tokenizes was killed: most often for want of memory. Give the job more"
            " of it or fewer threads, and start it again; finished shards stay"
        ) from None
