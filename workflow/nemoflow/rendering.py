"""Sources of conversations to spools, with several processes.

The parent reads rows and writes the spool; the processes parse, render and encode a batch at a
time. What is written does not depend on how many they are, and memory holds a few batches.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from nemoflow import corpus, first_rows
from nemoflow.chat import Place, Rendered, Renderer, Unread
from nemoflow.errors import UserError
from nemoflow.pools import pool
from nemoflow.progress import Bytes
from nemoflow.rows import Drop, RowCount
from nemoflow.source_file import SourceFile
from nemoflow.spool import Conversation, SpoolWriter, conversation
from nemoflow.tokens import described
from nemoflow.vocabulary import Folder

BATCH_BYTES, BATCH_ROWS = 1 << 20, 512  # of JSON, and of anything
WAITING = 3  # batches of each process that are read, or rendered, and not written yet

Json = dict[str, Any]


class Batch(NamedTuple):
    """Neighbouring rows of a file."""

    file: SourceFile
    rows: list[tuple[Place, Unread]]


class Ready(NamedTuple):
    """Rendered rows of a batch: `kept` {number of the row: what is written}, and the others."""

    kept: dict[int, Conversation]
    made: Rendered


def make(
    settings: Mapping[str, Any], tokenizer_dir: str, out_dir: Path, cache: Path, workers: int
) -> Json:
    """Render the source of a spec into a spool; what its manifest tells.

    `settings` are those of `chat.Renderer`, and source and max_dropped. Returns {"source_files",
    "pinned", "rows": {"in", "kept", "dropped"}, "reasoning" (rows by what was done to it),
    "sequences", "tokens", "trained_tokens", "lengths"}.

    Raises:
        UserError: too many rows are faulty, none is left, or the template trains nothing.
    """
    source = corpus.pin(settings["source"])
    files = corpus.list_files(source, cache)
    folder = Folder(tokenizer_dir)
    given = batches(source, files, cache)
    head = next(given, None)
    if head is None:
        raise UserError("the source has no row in any of its files")
    renderer = first_rows.renderer(folder, settings, head.file.path, head.rows)
    writer = Writer(source, cache)
    with (
        SpoolWriter(out_dir, folder.eos) as spool,
        Bytes("render", sum(file.bytes for file in files)) as progress,
    ):
        for batch, made in rendered(renderer, chain([head], given), workers):
            writer.write(spool, batch, made)
            progress.add(sum(len(row) for _, row in batch.rows if isinstance(row, bytes)))
        facts = writer.facts(settings["max_dropped"])
    told = {"source_files": [vars(file) for file in files], "pinned": corpus.pinned(source)}
    return {**told, **facts}


def batches(source: corpus.Source, files: Iterable[SourceFile], cache: Path) -> Iterator[Batch]:
    """The rows of a source, in order."""
    for file in files:
        rows: list[tuple[Place, Unread]] = []
        size = 0
        for place, row in corpus.unread(file, source, cache):
            rows.append((place, row))
            size += len(row) if isinstance(row, bytes) else 0
            if size >= BATCH_BYTES or len(rows) == BATCH_ROWS:
                yield Batch(file, rows)
                rows, size = [], 0
        if rows:
            yield Batch(file, rows)


def rendered(
    renderer: Renderer, given: Iterable[Batch], workers: int
) -> Iterator[tuple[Batch, Ready]]:
    """Batches and what became of their rows, in order.

    Raises:
        UserError: a process was killed.
    """
    if workers == 1:
        for batch in given:
            yield batch, ready(renderer, batch.file.path, batch.rows)
        return
    waiting: deque[tuple[Batch, Future[Ready]]] = deque()
    with pool(workers, Process.begin, renderer) as processes:
        for batch in given:
            waiting.append((batch, processes.submit(Process.work, batch.file.path, batch.rows)))
            if len(waiting) >= WAITING * workers:
                batch, future = waiting.popleft()
                yield batch, future.result()
        for batch, future in waiting:
            yield batch, future.result()


def ready(renderer: Renderer, path: str, rows: list[tuple[Place, Unread]]) -> Ready:
    """Render a batch."""
    made = renderer.render(path, rows)
    kept = {number: conversation(sequences) for number, sequences in made.kept.items()}
    return Ready(kept, replace(made, kept={}))


class Process:
    """What a process of the pool renders with: shared with the parent until it is written to."""

    renderer: Renderer

    @classmethod
    def begin(cls, renderer: Renderer) -> None:
        """The beginning of a process."""
        cls.renderer = renderer

    @classmethod
    def work(cls, path: str, rows: list[tuple[Place, Unread]]) -> Ready:
        """Render a batch."""
        return ready(cls.renderer, path, rows)


class Writer:
    """Writes batches into a spool, and counts what became of each row."""

    def __init__(self, source: corpus.Source, cache: Path):
        self._source, self._cache = source, cache
        self._counts, self._ids = RowCount(), set[int]()
        self._lengths: Counter[int] = Counter()
        self._noted: Counter[str] = Counter()
        self._trained = 0

    def write(self, spool: SpoolWriter, batch: Batch, found: Ready) -> None:
        """Write the rows of a batch that are kept; one whose id came before is dropped."""
        made = found.made
        for number, (place, _) in enumerate(batch.rows):
            self._counts.rows_in += 1
            drop, key = made.dropped.get(number), made.keys.get(number)
            if drop is None and key in self._ids:
                drop = Drop("duplicate_id")
            if drop is not None:
                self._drop(batch.file, place, drop)
                continue
            if key is not None:
                self._ids.add(key)
            self._counts.kept += 1
            self._noted.update(made.noted.get(number, ()))
            row = found.kept[number]
            spool.add(row)
            self._lengths.update(row.sequences["length"].tolist())
            self._trained += int(row.sequences["trained"].sum())

    def _drop(self, file: SourceFile, place: Place, drop: Drop) -> None:
        where = ""
        if drop.reason not in self._counts.first:  # finding the line reads the file up to there
            line = corpus.numbered(file, self._source, self._cache, place)
            where = ": ".join(filter(None, (f"{file.path}, {line}", drop.detail)))
        self._counts.drop(drop.reason, where)

    def facts(self, max_dropped: float) -> Json:
        """What the manifest tells; UserError where too many rows are faulty, or none is left."""
        self._counts.check(max_dropped)
        if not self._counts.kept:
            raise UserError(f"no conversation is left to train on, rows: {self._counts.as_dict()}")
        return {
            "rows": self._counts.as_dict(),
            "reasoning": dict(sorted(self._noted.items())),
            "sequences": self._lengths.total(),
            "tokens": sum(length * count for length, count in self._lengths.items()),
            "trained_tokens": self._trained,
            "lengths": described(self._lengths),
        }
