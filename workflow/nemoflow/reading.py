"""Files read to the last byte, whatever was noted of them before."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from tqdm import tqdm

from nemoflow.manifest import THREADS

BLOCK = 1 << 20  # bytes


class Reading:
    """The md5 of files, with a bar by bytes; what has several names (hard links) is read once.

    `bytes` counts what was read.
    """

    def __init__(self, paths: Iterable[Path]):
        self.known: dict[tuple[int, int], str] = {}
        self.inodes: dict[Path, tuple[int, int]] = {}
        sizes = {}
        for path in paths:
            status = path.stat()
            self.inodes[path] = (status.st_dev, status.st_ino)
            sizes[self.inodes[path]] = status.st_size
        self.bytes, self.lock = 0, Lock()
        self.bar = tqdm(
            total=sum(sizes.values()), unit="B", unit_scale=True, desc="verify", disable=None
        )

    def __enter__(self) -> "Reading":
        return self

    def __exit__(self, *raised: object) -> None:
        self.bar.close()

    def md5s(self, paths: Iterable[Path]) -> dict[Path, str]:
        """{path: its md5, or why it cannot be read}, by several threads."""
        asked = {path: self.inodes[path] for path in paths}
        fresh = {inode: path for path, inode in asked.items() if inode not in self.known}
        with ThreadPoolExecutor(THREADS) as pool:
            self.known |= zip(fresh, pool.map(self.md5_of, fresh.values()), strict=True)
        return {path: self.known[inode] for path, inode in asked.items()}

    def md5_of(self, path: Path) -> str:
        """A file's md5, or why it cannot be read."""
        found = hashlib.md5()
        try:
            with open(path, "rb") as file:
                while block := file.read(BLOCK):
                    found.update(block)
                    with self.lock:
                        self.bytes += len(block)
                        self.bar.update(len(block))
        except OSError as error:
            return f"cannot be read: {os.strerror(error.errno)}"
        return found.hexdigest()
