"""Digests of files of this machine, each read once: a stamp in the cache keeps what was found."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nemoflow.files import digest, read_json, write_json
from nemoflow.progress import Bytes

THREADS = 8  # hashlib lets go of the interpreter's lock
BLOCK = 4 << 20  # bytes
SMALL = 1 << 16  # bytes; quicker read than its stamp is written


def digest_of(path: Path, cache: Path, kind: str = "sha256", progress: Bytes | None = None) -> str:
    """The digest of a file as "sha256:HEX", or as "git:HEX", the id of a git blob.

    It is kept in `cache` for as long as the file's size and mtime stay; a small file is read again.
    """
    stat = path.stat()
    state = [stat.st_size, stat.st_mtime_ns]
    stamp = Path(cache) / "digests" / f"{digest([str(path.absolute()), kind])}.json"
    noted = stat.st_size > SMALL
    if noted and stamp.is_file() and (known := read_json(stamp))["state"] == state:
        return known["digest"]
    found = hashlib.sha256()
    if kind == "git":
        found = hashlib.sha1(b"blob %d\0" % stat.st_size)
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            found.update(block)
            if progress is not None:
                progress.add(len(block))
    if noted:
        write_json(stamp, {"state": state, "digest": f"{kind}:{found.hexdigest()}"})
    return f"{kind}:{found.hexdigest()}"


def digests_of(paths: Iterable[Path], cache: Path) -> list[str]:
    """The sha256 of files, by several threads, telling how far they are."""
    paths = list(paths)
    total = sum(path.stat().st_size for path in paths)
    with Bytes("reading source files", total) as progress, ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda path: digest_of(path, cache, progress=progress), paths))
