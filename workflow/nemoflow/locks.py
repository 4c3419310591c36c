"""Who works on what: one job per product, and the controllers of a checkout.

Locks are flocks, released by the kernel when their holder dies; beside each stands who holds it.
On some network file systems a flock holds on one host only, hence the host in the text.
"""

import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from nemoflow.manifest import payload
from nemoflow.progress import say


def whoami() -> str:
    """A line about the running process, for whoever has to wait for it."""
    command = " ".join(" ".join(sys.argv).split())
    return f"process {os.getpid()} on {socket.gethostname()}: {command}"


def write_holder(file: IO[str]) -> None:
    """Write this process into a lock file that it holds."""
    file.seek(0)
    file.truncate()
    file.write(whoami())
    file.flush()


def lock_of(manifest: str | Path) -> Path:
    """The lock file of a product."""
    beside = Path(manifest)
    return beside.with_name(f".{beside.stem}.lock")


@contextmanager
def product(manifest: str | Path) -> Iterator[int]:
    """Hold the exclusive lock of a product; yields the lock's file descriptor.

    The descriptor is handed to the processes that do the work (`pass_fds`), so that an orphan of a
    killed job keeps the lock until it ends: the next job waits, and says for whom.
    """
    folder, lock = payload(manifest), lock_of(manifest)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a+") as file:
        if not soon_taken(file):
            file.seek(0)
            holder = file.read() or "a process"
            say(f"{folder}: waiting for {holder}, which still works on it")
            started = time.monotonic()
            fcntl.flock(file, fcntl.LOCK_EX)
            say(f"{folder}: free after {time.monotonic() - started:.0f} s, going on")
        write_holder(file)
        yield file.fileno()


def holder(lock: Path) -> str | None:
    """Who holds a lock file, as written in it; None where nobody on this host does.

    It is tried as a shared lock for a moment: `soon_taken` tries again.
    """
    try:
        with open(lock, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read() or "a process"
    except OSError:  # none, or somebody else's
        return None
    return None


@contextmanager
def all_free(locks: Iterable[Path]) -> Iterator[bool]:
    """Hold lock files that nobody holds; yields False, holding none, when somebody has one."""
    with ExitStack() as held:
        try:
            for lock in locks:
                fcntl.flock(held.enter_context(open(lock, "a+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # the latter: somebody else's file
            held.close()
            yield False
            return
        yield True


def soon_taken(file: IO[str]) -> bool:
    """Take an exclusive lock, unless somebody holds it for more than a second."""
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


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
            self.file.truncate(0)
        self.file.write(f"\n{whoami()}")
        self.file.flush()
        fcntl.flock(self.file, fcntl.LOCK_SH)
        return alone

    def clear_locks(self) -> bool:
        """Remove Snakemake's lock files, unless a controller on another host may have made them.

        False if so: it may live still, and stays listed until its locks are gone.
        """
        locks = list((self.folder / "locks").glob("*"))
        if locks and any(not is_local(line) for line in self.listed()):
            return False
        for lock in locks:
            lock.unlink(missing_ok=True)
        return True

    def listed(self) -> list[str]:
        """The lines of those that joined since one was last alone."""
        self.file.seek(0)
        return [line for line in self.file.read().splitlines() if line]

    def forget(self, holder: str) -> None:
        """Take a controller off the list that is known to be dead: the beginning of its line."""
        lines = [line for line in self.listed() if not line.startswith(holder)]
        self.file.truncate(0)
        self.file.write("\n".join(["", *lines]))
        self.file.flush()

    def others(self) -> list[str]:
        """The lines of other controllers that live; those on other hosts may."""
        mine = f"process {os.getpid()} on {socket.gethostname()}: "
        return [line for line in self.listed() if not line.startswith(mine) and may_live(line)]

    def beside(self) -> list[int]:
        """The process numbers of other controllers that live on this host."""
        local = [line for line in self.others() if is_local(line) and is_snakemake(line)]
        return [int(re.match(r"process (\d+) ", line)[1]) for line in local]

    def collision(self) -> str:
        """Why a second controller cannot have the same products, and what to do."""
        others = self.others()
        text = (
            "another Snakemake works in this checkout and holds products that this command needs"
            f" too ({'; '.join(others) or 'it has just ended'}). Wait until it has ended, then give"
            " this command again; another time, give both targets to one command. Other targets go"
            " on beside it. Do not --unlock while it lives: two would write the same files."
        )
        if distant := [line for line in others if not is_local(line)]:
            host = re.search(r" on (\S+): ", f"{distant[0]}: ")
            text += (
                f" Was it killed on {host[1]}, then this command, given there, clears its locks."
            )
        return text


def is_local(holder: str) -> bool:
    """Whether a line of `whoami` is of this host."""
    return f" on {socket.gethostname()}: " in holder


def may_live(holder: str) -> bool:
    """Whether the process of a line of `whoami` lives, or is on another host."""
    found = re.match(r"process (\d+) ", holder)
    if not found or not is_local(holder):
        return True
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def is_snakemake(holder: str) -> bool:
    """Whether the process of a line of `whoami`, if it is of this host, is Snakemake still.

    The kernel gives the number of a dead process to another one day.
    """
    found = re.match(r"process (\d+) ", holder)
    if not found or not is_local(holder):
        return True
    try:
        return b"snakemake" in Path(f"/proc/{found[1]}/cmdline").read_bytes()
    except OSError:
        return Path("/proc").exists() is False
