"""Making the shards of a part, with several processes."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from nemoflow import corpus, encoding, gate, indexed
from nemoflow.blocks import BLOCK, Unit, file_of, units
from nemoflow.collecting import Collected, Growing, collect, hear
from nemoflow.documents import Documents
from nemoflow.encoding import Encoder, Gigatoken
from nemoflow.holdout import SPLITS, Holdout
from nemoflow.progress import Bytes, say
from nemoflow.text_rows import Rows
from nemoflow.turns import Turns
from nemoflow.vocabulary import Folder
from nemoflow.workers import CONTEXT, Shard, die_with_parent, work

SELF_TEST = 256 << 10  # bytes of a part's own texts that both tokenizers encode

Json = dict[str, Any]
Pieces = dict[int, list[Json]]
Done = Callable[[int, Json], None]


class Differs(Exception):
    """gigatoken encodes a text of the corpus otherwise than its tokenizer's own library."""


@dataclass
class Job:
    """What a part is made with; see `tokens.tokenize_part`."""

    out_dir: Path
    folder: Folder
    settings: Json
    holdout: Holdout
    cache: Path

    def units(self, pieces: list[Json]) -> Iterator[Unit]:
        """The blocks of a shard."""
        told = self.settings
        rows = Rows(told["text_field"], told["min_doc_chars"], told.get("sample"))
        return units(pieces, told["source"], self.cache, rows)

    def files(self, shard: int) -> list[Path]:
        """Where the ids of a shard's splits are written, before they have their names."""
        return [self.out_dir / f".{split}_{shard:05d}.bin.tmp" for split in SPLITS]

    def processes(self, shards: Pieces, workers: int) -> int:
        """How many processes have something to do."""
        if self.settings.get("sample"):
            return 1
        pieces = [piece for pieces in shards.values() for piece in pieces]
        stored = sum(piece["end"] - piece["start"] for piece in pieces)
        return max(1, min(workers, -(-stored // BLOCK)))


def make(job: Job, shards: Pieces, workers: int, done: Done) -> None:
    """Make shards, {number: pieces}; `done` is told the number and receipt of each.

    Raises:
        UserError: as `tokens.tokenize_part`.
    """
    left = dict(shards)

    def finished(shard: int, receipt: Json) -> None:
        done(shard, receipt)
        del left[shard]

    try:
        why = encoding.refusal(job.folder)
        if why is None:
            try:
                return make_fast(job, shards, workers, finished)
            except Differs as difference:
                why = str(difference)
        say(f"{job.settings['corpus']}: not with gigatoken: {why}")
        with Crew() as crew:
            run(crew, job, dict(left), workers, encoding.exact(job.folder), finished, agrees)
    finally:
        for path in job.out_dir.glob(".*.tmp"):  # of shards that could not be finished
            path.unlink()


def make_fast(job: Job, shards: Pieces, workers: int, finished: Done) -> None:
    """Make shards with gigatoken, while another process encodes a sample of them without it.

    Raises:
        Differs: they do not agree, or gigatoken refuses the tokenizer; what is finished is good.
    """
    with Crew() as crew:
        samples = [sample(job, shards), list(gate.stress(job.folder.told.added_tokens))]
        heard = crew.start(encode_samples, job.folder, samples)  # loads while gigatoken does
        try:
            encoder = encoding.Gigatoken(job.folder, encoding.CACHE)
        except (ValueError, RuntimeError) as error:  # of what it knows that it cannot do
            raise Differs(str(error).partition("\n")[0]) from None
        verdict = partial(compare, encoder, samples, heard)
        run(crew, job, shards, workers, encoder, finished, verdict)


def agrees() -> None:
    """The verdict on the tokenizer's own library."""


def sample(job: Job, shards: Pieces) -> list[bytes]:
    """Texts of a part that both encoders are to encode, its first ones."""
    for unit in job.units([piece for shard in sorted(shards) for piece in shards[shard]]):
        if texts := unit().texts:
            sizes = np.cumsum([len(text) for text in texts])
            return texts[: int(np.searchsorted(sizes, SELF_TEST)) + 1]
    return []


def encode_samples(folder: Folder, samples: list[list[bytes]], out: Connection) -> None:
    """Encode texts with the tokenizer's own library, in a process of its own."""
    die_with_parent()
    encoder = encoding.exact(folder)
    for texts in samples:
        out.send(encoder.encode(texts))


def compare(encoder: Gigatoken, samples: list[list[bytes]], heard: Connection) -> None:
    """Raise Differs where an encoder's ids of some texts are not those that are heard."""
    for texts in samples:
        found = gate.difference(texts, encoder.encode(texts), hear(heard))
        if found is not None:
            raise Differs(f"it encodes {found[:60].decode(errors='replace')!r} otherwise")


def run(
    crew: "Crew",
    job: Job,
    shards: Pieces,
    workers: int,
    encoder: Encoder,
    finished: Done,
    verdict: Callable[[], None],
) -> None:
    """Make shards with an encoder; nothing is finished before `verdict` has returned."""
    say(f"{job.settings['corpus']}: encoding with {encoder.name}")
    count = job.processes(shards, workers)
    teams = min(len(shards), count)
    documents = Documents(encoder, job.folder, job.settings, job.holdout)
    dtype = indexed.token_dtype(job.settings["dtype"])
    work_of = [
        [prepared(job, shard, shards) for shard in sorted(shards)[team::teams]]
        for team in range(teams)
    ]
    pipes_of = [
        [
            crew.start(work, mine, documents, dtype)
            for _ in range(count // teams + (team < count % teams))
        ]
        for team, mine in enumerate(work_of)
    ]
    with ThreadPoolExecutor(teams + 1) as pool, Bytes("tokens", known_size(shards)) as progress:
        judged = pool.submit(verdict)
        finish = partial(finish_shard, job, shards, judged, finished)
        heard = [
            pool.submit(collect, pipes, collected(mine), finish, progress.add)
            for pipes, mine in zip(pipes_of, work_of, strict=True)
        ]
        try:
            for future in as_completed([judged, *heard]):
                future.result()
        finally:
            crew.stop()  # before the pool waits for the threads that hear them


def collected(shards: list[Shard]) -> dict[int, Collected]:
    """Where what is heard of shards is kept, by their numbers."""
    return {shard.number: Collected([Growing(path) for path in shard.files]) for shard in shards}


def known_size(shards: Pieces) -> int | None:
    """The bytes of all rows, where they can be told before they are read."""
    pieces = [piece for pieces in shards.values() for piece in pieces]
    if any(file_of(piece).compressed or file_of(piece).parquet for piece in pieces):
        return None
    return sum(piece["end"] - piece["start"] for piece in pieces)


def prepared(job: Job, shard: int, shards: Pieces) -> Shard:
    """A shard to be made, with its empty files."""
    files = job.files(shard)
    for path in files:
        path.write_bytes(b"")
    return Shard(shard, partial(job.units, shards[shard]), files, Turns(CONTEXT, len(files)))


class Crew:
    """Processes at work; a context manager that ends them."""

    def __init__(self) -> None:
        self._processes: list[Any] = []

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, life: Callable[..., None], *given: Any) -> Connection:
        """Start a process; what it says comes out of the pipe."""
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=life, args=(*given, theirs), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # we hear Ctrl-C for it
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._processes.append(process)
        return ours

    def stop(self) -> None:
        """End those that still work, and wait for it."""
        for process in self._processes:
            process.kill()
            process.join()


def finish_shard(
    job: Job,
    shards: Pieces,
    judged: Future[None],
    finished: Done,
    shard: int,
    collected: Collected,
) -> None:
    """Give a shard's files their names, with an index beside each."""
    counted = {path for path, _ in collected.ledger.rows}
    for piece in shards[shard]:
        if piece["path"] in counted or not job.settings.get("sample"):  # it was read
            corpus.checked(file_of(piece), job.settings["source"], job.cache)  # and not changed
            collected.ledger.see(piece["path"])
    judged.result()
    told, digests, dtype = {}, {}, job.settings["dtype"]
    all_lengths = [np.concatenate(each or [np.zeros(0, "<i4")]) for each in collected.lengths]
    for split, ids, lengths in zip(SPLITS, collected.files, all_lengths, strict=True):
        name = f"{split}_{shard:05d}"
        if not len(lengths):
            ids.path.unlink()
            continue
        md5 = indexed.publish(ids.path, job.out_dir / name, lengths, dtype)
        digests |= {f"{name}.bin": ids.md5.hexdigest(), f"{name}.idx": md5}
        told[name] = {"sequences": len(lengths), "tokens": int(lengths.sum()), "split": split}
    values, counts = np.unique(np.concatenate(all_lengths), return_counts=True)
    receipt = {
        "shards": told,
        "files": digests,
        "ledger": collected.ledger.receipt(),
        "lengths": list(zip(values.tolist(), counts.tolist(), strict=True)),
        "truncated": collected.truncated,
    }
    finished(shard, receipt)
