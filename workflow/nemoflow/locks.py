"""Who works on what: one job per product, and the controllers of a checkout.

Locks are flocks, released by the kernel when their holder dies; beside each stands who holds it.
On some network file systems a flock holds on one host only, hence the host in the text.
"""

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nemoflow.manifest import payload


def whoami() -> str:
    """A line about the running process, for whoever has to wait for it."""
    return f"process {os.getpid()} on {socket.gethostname()}: {' '.join(sys.argv)}"


def write_holder(file: IO[str]) -> None:
    """Write this process into a lock file that it holds."""
    file.seek(0)
    file.truncate()
    file.write(whoami())
    file.flush()


@contextmanager
def product(manifest: str | Path) -> Iterator[int]:
    """Hold the exclusive lock of a product; yields the lock's file descriptor.

    The descriptor is handed to the processes that do the work (`pass_fds`), so that an orphan of a
    killed job keeps the lock until it ends: the next job waits, and says for whom.
    """
    folder, beside = payload(manifest), Path(manifest)
    beside.parent.mkdir(parents=True, exist_ok=True)
    with open(beside.with_name(f".{beside.stem}.lock"), "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            print(
                f"{folder}: waiting for {file.read() or 'a process'}, which still works on it",
                file=sys.stderr,
                flush=True,
            )
            started = time.monotonic()
            fcntl.flock(file, fcntl.LOCK_EX)
            waited = time.monotonic() - started
            print(f"{folder}: free after {waited:.0f} s, going on", file=sys.stderr, flush=True)
        write_holder(file)
        yield file.fileno()


class Controllers:
    """The Snakemake processes that work in a checkout; each holds a shared lock while it lives."""

    def __init__(self, folder: Path):
        """`folder` is Snakemake's own, `.snakemake`."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.file = open(folder / "controllers", "a+")  # noqa: SIM115  (as long as it lives)

    def join(self) -> bool:
        """Take a shared lock; True if no other controller lived here.

        Who can take the lock alone knows that every earlier controller is dead, and removes the
        locks that they left behind in `.snakemake/locks`.
        """
        alone = True
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        if alone and self.clear_locks():
            write_holder(self.file)
        fcntl.flock(self.file, fcntl.LOCK_SH)
        return alone

    def clear_locks(self) -> bool:
        """Remove Snakemake's lock files, unless their controller lived on another host.

        False if it did: it may live still, and stays the holder until its locks are gone.
        """
        locks, text = list((self.folder / "locks").glob("*")), self.others()
        if locks and text and f" on {socket.gethostname()}:" not in text:
            return False
        for lock in locks:
            lock.unlink(missing_ok=True)
        return True

    def others(self) -> str:
        """Who held the lock first."""
        self.file.seek(0)
        return self.file.read()
