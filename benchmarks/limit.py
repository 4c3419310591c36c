"""The limit: gigatoken alone, on a corpus' rows in memory, its cache empty at first.

    python limit.py CORPUS TOKENIZER.json WORKERS

Rows are read and parsed, shared out among forked processes, equal bytes to each, and the
tokenizer is loaded, before the clock starts; ids are thrown away. Prints the seconds from the
first process's first row to the last one's last.
"""

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

os.environ["RAYON_NUM_THREADS"] = "1"


class Row(msgspec.Struct):
    """What is read of a row."""

    text: str


def texts(corpus: str) -> Iterator[bytes]:
    """The texts of a corpus, in UTF-8."""
    decoder = msgspec.json.Decoder(Row)
    with open(corpus, "rb") as lines:
        for line in lines:
            yield decoder.decode(line).text.encode()


def shared_out(rows: list[bytes], workers: int) -> list[list[bytes]]:
    """As many runs of rows, about equal in bytes."""
    total, before = sum(map(len, rows)), 0
    shares: list[list[bytes]] = [[] for _ in range(workers)]
    for row in rows:
        shares[before * workers // total].append(row)
        before += len(row)
    return shares


def encode(rows: list[bytes], tokenizer: str, start: Any, times: Any) -> None:
    """Tokenize one process's share, once all have loaded the tokenizer."""
    import gigatoken

    backend = gigatoken.Tokenizer(tokenizer).backend
    start.wait()
    began = time.monotonic()
    for row in rows:
        backend.encode(row)
    times.put((began, time.monotonic()))


def main(corpus: str, tokenizer: str, workers: str) -> None:
    """Print the seconds."""
    count = int(workers)
    shares = shared_out(list(texts(corpus)), count)
    gc.freeze()  # else a collection in a process would copy the rows it shares
    context = multiprocessing.get_context("fork")
    start, times = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=encode, args=(share, tokenizer, start, times)) for share in shares
    ]
    for process in processes:
        process.start()
    spans = [times.get() for _ in processes]
    for process in processes:
        process.join()
    print(max(end for _, end in spans) - min(began for began, _ in spans))


if __name__ == "__main__":
    main(*sys.argv[1:])
