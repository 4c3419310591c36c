"""Which items of evaluations stand in what a run trains on: counted, with examples.

A job reads one product, with several processes that share the items; memory holds the items and a
document of each process. What it finds does not depend on how many they are. A killed job goes on
behind the pieces that it has read.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nemoflow import manifest
from nemoflow.decoding import Decoder
from nemoflow.files import digest, read_json, write_json
from nemoflow.overlap import Index
from nemoflow.pools import pool
from nemoflow.progress import say
from nemoflow.trained_texts import Piece, pieces
from nemoflow.vocabulary import Folder

EXAMPLES = 3  # of each task
WAITING = 2  # pieces of each process that are read, or waiting

Json = dict[str, Any]


class Job(NamedTuple):
    """The training split of a product, as `trained_texts.pieces` takes it.

    `tokenizer` is the folder of the one that made its tokens, None for prompts, which are text.
    """

    kind: str
    product: Mapping[str, Any]
    folder: Path
    tokenizer: str | None


def tasks_of(paths: Iterable[str]) -> dict[str, list[str]]:
    """{task: the texts of its items}, from the manifests of their products."""
    found = {}
    for path in map(Path, paths):
        lines = (manifest.payload(path) / "items.jsonl").read_bytes().splitlines()
        found[path.stem] = [msgspec.json.decode(line)["text"] for line in lines]
    return found


def search(job: Job, tasks: Mapping[str, Sequence[str]], kept: "Kept", workers: int) -> Json:
    """Look for the items of tasks in what a job reads, as far as that is not known yet.

    Returns {"documents": read, "tasks": {task: {"items", "short": of fewer than 13 words, "found":
    numbers from 1 of the items that some document holds, "documents": that hold one, "examples":
    [{"item", "where", "words"}]}}}.
    """
    index = Index(tasks)
    decoder = Decoder(Folder(job.tokenizer)) if job.tokenizer else None
    every = list(pieces(job.kind, job.product, job.folder))
    found = Found(tasks)
    for number, told in enumerate(looked(Looker(index, decoder), every, kept, workers), start=1):
        found.add(told)
        if number % 100 == 0:
            say(f"{job.folder}: {number} of {len(every)} pieces, {found.documents:,} documents")
    return found.told(index.short)


class Looker:
    """Reads a piece and says what it holds; shared with the processes that do it."""

    here: "Looker"

    def __init__(self, index: Index, decoder: Decoder | None):
        self._index, self._decoder = index, decoder

    def look(self, piece: Piece) -> Json:
        """{"documents", "found": [[task, number of the item]], "hits": {task: documents},
        "examples": {task: [...]}} of a piece.
        """
        documents, seen, hits = 0, set(), Counter()
        examples: dict[str, list[Json]] = {}
        for document in piece.texts(self._decoder):
            documents += 1
            held: dict[tuple[str, int], str] = {}
            for text in document.texts:
                held = self._index.find(text) | held
            hits.update({task for task, _ in held})
            for (task, number), words in sorted(held.items()):
                shown = examples.setdefault(task, [])
                if (task, number) not in seen and len(shown) < EXAMPLES:
                    where = document.where()
                    shown.append({"item": number + 1, "where": where, "words": words})
                seen.add((task, number))
        return {
            "documents": documents,
            "found": sorted(map(list, seen)),
            "hits": dict(sorted(hits.items())),
            "examples": examples,
        }

    @classmethod
    def begin(cls, looker: "Looker") -> None:
        """The beginning of a process."""
        cls.here = looker

    @classmethod
    def work(cls, piece: Piece) -> Json:
        """Look at a piece, in a process of its own."""
        return cls.here.look(piece)


class Kept:
    """What is known of the pieces that a killed job had read, of this very job."""

    def __init__(self, folder: Path, belongs: Any):
        self._folder, self._belongs = folder, digest(belongs)

    def known(self, piece: Piece) -> Json | None:
        """What stands of a piece."""
        path = self._path(piece)
        return read_json(path) if path.exists() else None

    def keep(self, piece: Piece, told: Json) -> None:
        """Note what was found in a piece."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(piece), told)

    def _path(self, piece: Piece) -> Path:
        return self._folder / f"{digest([self._belongs, *piece])}.json"


def looked(looker: Looker, every: Sequence[Piece], kept: Kept, workers: int) -> Iterator[Json]:
    """What each piece holds, in order.

    Raises:
        UserError: a process was killed.
    """
    if workers == 1:
        for piece in every:
            if (told := kept.known(piece)) is None:
                kept.keep(piece, told := looker.look(piece))
            yield told
        return
    waiting: deque = deque()

    def first() -> Json:
        piece, told, future = waiting.popleft()
        if future is not None:
            kept.keep(piece, told := future.result())
        return told

    with pool(workers, Looker.begin, looker) as processes:
        for piece in every:
            told = kept.known(piece)
            future = processes.submit(Looker.work, piece) if told is None else None
            waiting.append((piece, told, future))
            if len(waiting) >= WAITING * workers:
                yield first()
        while waiting:
            yield first()


class Found:
    """What all pieces of a product hold together."""

    def __init__(self, tasks: Mapping[str, Sequence[str]]):
        self.documents = 0
        self._items = {task: len(texts) for task, texts in tasks.items()}
        self._found: dict[str, set[int]] = {task: set() for task in tasks}
        self._hits: Counter[str] = Counter()
        self._examples: dict[str, list[Json]] = {task: [] for task in tasks}

    def add(self, told: Json) -> None:
        """Add what `Looker.look` tells of a piece."""
        self.documents += told["documents"]
        self._hits.update(told["hits"])
        for task, number in told["found"]:
            self._found[task].add(number + 1)
        for task, examples in told["examples"].items():
            show(self._examples[task], examples)

    def told(self, short: Mapping[str, int]) -> Json:
        """What `search` returns."""
        tasks = {
            task: {
                "items": count,
                "short": short[task],
                "found": sorted(self._found[task]),
                "documents": self._hits[task],
                "examples": self._examples[task],
            }
            for task, count in self._items.items()
        }
        return {"documents": self.documents, "tasks": tasks}


def show(examples: list[Json], more: Iterable[Json]) -> None:
    """Add further examples, of other items, as long as there are few."""
    shown = {example["item"] for example in examples}
    new = [example for example in more if example["item"] not in shown]
    examples += new[: EXAMPLES - len(examples)]


def gather(run: str, unchecked: Mapping[str, str], overlaps: Sequence[str]) -> Json:
    """What contamination.json says, from the manifests of `overlap`.

    {"run", "data": {product: {"documents", "found": items that it holds}}, "tasks": {task:
    {"items", "short", "found": in any product, "documents": {product: that hold one}, "examples":
    at most three}}, "unchecked": {task: why}}. A product is its kind, a slash and its name.
    """
    data: dict[str, Json] = {}
    tasks: dict[str, Json] = {}
    for path in overlaps:
        told = manifest.read(path)
        name = f"{Path(path).parent.name}/{Path(path).stem}"
        found = sum(len(task["found"]) for task in told["tasks"].values())
        data[name] = {"documents": told["documents"], "found": found}
        for task, entry in told["tasks"].items():
            start = {"items": entry["items"], "short": entry["short"], "found": set()}
            whole = tasks.setdefault(task, {**start, "documents": {}, "examples": []})
            whole["found"].update(entry["found"])
            whole["documents"][name] = entry["documents"]
            show(whole["examples"], entry["examples"])
    for whole in tasks.values():
        whole["found"] = len(whole["found"])
    return {"run": run, "data": data, "tasks": tasks, "unchecked": dict(unchecked)}
