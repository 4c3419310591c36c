"""What lies under results/ and in DVC's cache: files, the folders of bytes read, and the remote."""

import os
import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nemoflow import locks, references, storage
from nemoflow.errors import UserError
from nemoflow.files import read_json
from nemoflow.manifest import PARTS, list_bytes, tree_md5

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?:new|former|tmp)")
NO_PAYLOAD = ("logs", "sources", "progress")


@dataclass(frozen=True)
class File:
    """A file as it lies on disk, links not followed; `changed` is its mtime in nanoseconds."""

    path: str
    size: int
    inode: tuple[int, int]
    links: int
    changed: int

    @classmethod
    def at(cls, path: str) -> "File":
        """The file at a path."""
        told = os.lstat(path)
        inode = (told.st_dev, told.st_ino)
        return cls(path, told.st_size, inode, told.st_nlink, told.st_mtime_ns)


class Survey:
    """One look at a checkout; `here` is what its working tree refers to, `elsewhere` git's rest."""

    def __init__(self):
        self.store = storage.Storage()
        self.git = references.state()
        self.look()
        self.busy = {path for path in map(Path, self.paths) if is_held(path)}
        self.payloads = self.read_payloads()
        self.look()  # with the stamps of what was read
        # Asked last: a job that has ended meanwhile has said what its bytes are.
        self.here, self.elsewhere = references.working_tree(), references.committed()
        self.cache_folder = os.path.relpath(self.store.repo.cache.local_cache_dir)
        self.objects, self.other_cached = self.list_cache()
        self.no_remote: str | None = None

    def look(self) -> None:
        """Find the files and folders of results/."""
        self.files, self.folders = walk("results")
        self.paths = [file.path for file in self.files]

    def read_payloads(self) -> dict[str, list[dict[str, Any]]]:
        """{folder of bytes: [{path, size, md5}]}; those that somebody works on are left out."""
        folders = [path for path in references.ignored(self.folders) if is_payload(path)]
        sizes = {path: sum(file.size for file in self.inside(path)) for path in folders}
        found = {}
        total = sum(sizes.values())
        with tqdm(total=total, unit="B", unit_scale=True, desc="read", disable=None) as bar:
            for folder, size in sizes.items():
                if not self.in_work(folder):
                    found[folder] = read_payload(folder)
                bar.update(size)
        return found

    def in_work(self, path: str | Path) -> bool:
        """Whether a job works at a path."""
        return not self.busy.isdisjoint(locks_of(path))

    def inside(self, folder: str) -> list[File]:
        """The files in a folder of results/."""
        first, last = (bisect_left(self.paths, folder + end) for end in "/0")  # 0 follows /
        return self.files[first:last]

    def list_cache(self) -> tuple[dict[str, File], list[File]]:
        """{md5: object} of DVC's cache, and what else lies there."""
        files, _ = walk(self.cache_folder)
        root = os.path.relpath(self.store.repo.cache.local.path)
        objects, others = {}, []
        for file in files:
            name = file.path.removeprefix(f"{root}/").replace("/", "", 1)
            if file.path.startswith(root) and re.fullmatch(r"[0-9a-f]{32}(\.dir)?", name):
                objects[name] = file
            else:
                others.append(file)
        return objects, others

    @property
    def shared(self) -> bool:
        """Whether other checkouts may use the cache, whose references are not known here."""
        own = Path(self.store.repo.root_dir, ".dvc").resolve()
        inside = Path(self.cache_folder).resolve().is_relative_to(own)
        return not inside or bool(self.store.repo.config["cache"].get("shared"))

    @cached_property
    def remote(self) -> set[str]:
        """The objects on the remote, of all that lie here; none where it cannot be asked."""
        wanted = {name: file.size for name, file in self.objects.items()}
        for files in self.payloads.values():
            wanted |= storage.objects({"files": files, "md5": tree_md5(files)})
        try:
            return self.store.on_remote(wanted)
        except UserError as error:
            self.no_remote = str(error)
            return set()

    @cached_property
    def listed(self) -> tuple[set[str], str | None]:
        """All objects that something refers to, and a pointer whose list of files is not here.

        A pointer without a manifest names a list of files, an object of the cache (dvc-data,
        hashfile/tree.py).
        """
        known = self.here.objects.keys() | self.elsewhere.objects.keys()
        unlisted = None
        for md5, pointer in (self.here.pointed | self.elsewhere.pointed).items():
            if md5.endswith(".dir") and md5 not in known:
                try:
                    known |= {entry["md5"] for entry in read_json(self.store.cached(md5))}
                except (FileNotFoundError, ValueError):  # not here, or damaged
                    unlisted = pointer
            known.add(md5)
        return known, unlisted

    @cached_property
    def md5s(self) -> dict[str, str]:
        """{path: md5} of the files of bytes that were read."""
        return {
            f"{folder}/{file['path']}": file["md5"]
            for folder, files in self.payloads.items()
            for file in files
        }


def walk(folder: str) -> tuple[list[File], list[str]]:
    """The files and folders below a folder; what goes meanwhile is left out."""
    files, folders = [], []
    for place, inner, names in os.walk(folder):
        folders += [f"{place}/{name}" for name in sorted(inner)]
        for name in sorted(names):
            try:
                files.append(File.at(f"{place}/{name}"))
            except FileNotFoundError:
                continue
    return sorted(files, key=lambda file: file.path), folders


def read_payload(folder: str) -> list[dict[str, Any]]:
    """[{path, size, md5}] of a folder of bytes; only what its stamp does not tell is read."""
    return [file for file in list_bytes(f"{folder}.json") if not leftover_in(file["path"])]


def is_held(path: Path) -> bool:
    """Whether a file is a product's lock, and a job holds it."""
    if path.suffix != ".lock" or not path.name.startswith("."):
        return False
    with locks.all_free([path]) as free:
        return not free


def is_payload(folder: str) -> bool:
    """Whether an ignored folder may hold a product's bytes."""
    path = Path(folder)
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.name not in NO_PAYLOAD and path.suffix != PARTS


def leftover_in(path: str) -> bool:
    """Whether a file is, or lies in, what a job makes before it gets its name."""
    return any(LEFTOVER.fullmatch(part) for part in Path(path).parts)


def locks_of(path: str | Path) -> list[Path]:
    """The lock files of the jobs that may write at a path under results/.

    Each product around it may be the one, and in case of a single file any product beside it.
    """
    path = Path(path)
    found = [] if path.is_dir() else list(path.parent.glob(".*.lock"))
    for place in [path, *path.parents][: len(path.parts) - 2]:
        name = place.name.lstrip(".")
        while match := LEFTOVER.fullmatch(f".{name}"):
            name = match["name"]
        product = "checkpoint" if name == "progress" else name
        found += [place.with_name(f".{product}.lock")]
        found += place.with_name(f"{name}{PARTS}").glob(".*.lock")
    return sorted({lock for lock in found if lock.exists()})


def last_held_elsewhere(held: Iterable[Path]) -> bool:
    """Whether a lock file was last held on another host, whose flocks may not be seen from here."""
    told = [lock.read_text() for lock in held]
    return any(text and not locks.is_local(text) for text in told)
