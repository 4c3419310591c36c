"""Small files as they stand here, or as a revision of git has them; nothing is checked out."""

import difflib
import json
import re
import subprocess
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError
from nemoflow.provenance import BUILDS

ROOTS = ("results", "provenance/builds")


class Tree(ABC):
    """Where files are read: the working tree, or a revision. Paths are relative to the root."""

    name: str

    @abstractmethod
    def content(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is none."""

    @abstractmethod
    def paths(self, pattern: str) -> list[str]:
        """The files that a glob pattern names, sorted."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.content(path) is not None

    def json(self, path: str) -> dict[str, Any]:
        """The mapping in a JSON file; empty where there is none.

        Raises:
            UserError: the file is not JSON, or holds no mapping.
        """
        try:
            content = self.content(path)
            value = {} if content is None else json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(f"{path} in {self.name}: no JSON mapping; git checkout it, or rebuild")
        return value

    def runs(self) -> list[str]:
        """The runs that have an eval.json."""
        return [Path(path).parent.name for path in self.paths("results/*/eval.json")]

    def products(self) -> list[str]:
        """Every manifest whose build is recorded."""
        found = self.paths(f"{BUILDS}/**/*.json")
        names = [path.removeprefix(f"{BUILDS}/").removesuffix(".json") for path in found]
        return [name for name in names if name.endswith(".json")]


class WorkingTree(Tree):
    """The files as they stand in the working directory."""

    name = "the working tree"

    def content(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        return Path(path).read_bytes() if Path(path).is_file() else None

    def paths(self, pattern: str) -> list[str]:
        """The files that a glob pattern names, sorted."""
        return sorted(path.as_posix() for path in Path().glob(pattern))


class Revision(Tree):
    """The files of results/ and provenance/builds/ as a revision has them.

    Raises:
        UserError: no git repository is here, or it has no such revision.
    """

    def __init__(self, revision: str):
        self.commit = commit_of(revision)
        self.name = f"revision {revision} ({self.commit[:8]})"
        listed = git("ls-tree", "-r", "-z", self.commit, "--", *ROOTS).decode().split("\0")
        entries = [line.split("\t", 1) for line in listed if line]
        self.blobs = {path: told.split()[2] for told, path in entries}

    def content(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        return blob(self.blobs[path]) if path in self.blobs else None

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return path in self.blobs

    def paths(self, pattern: str) -> list[str]:
        """The files that a glob pattern names, sorted."""
        expression = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        return sorted(path for path in self.blobs if re.fullmatch(expression, path))


@cache
def blob(name: str) -> bytes:
    """A blob of git's; two revisions share most of theirs."""
    return git("cat-file", "blob", name)


def git(*arguments: str) -> bytes:
    """What a command of git prints.

    Raises:
        UserError: git is not installed, or says that it cannot do it.
    """
    try:
        done = subprocess.run(["git", *arguments], capture_output=True)
    except FileNotFoundError:
        raise UserError("git is not installed: a revision cannot be read") from None
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.decode().strip()}")
    return done.stdout


def commit_of(revision: str) -> str:
    """The commit that a revision names.

    Raises:
        UserError: no git repository is here, or it has no such revision; names the nearest.
    """
    if found := resolved(revision):
        return found
    try:
        known = git("for-each-ref", "--format=%(refname:short)").decode().split()
    except UserError as error:
        raise UserError(f"{revision}: no revision can be read here: {error}") from None
    raise UserError(
        f"{revision}: git knows no such revision{nearest(revision, known)}; see git log --oneline"
    )


def resolved(revision: str) -> str | None:
    """The commit that a revision names, None where it names none, or git has nothing here."""
    asked = ["--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    try:
        return git("rev-parse", *asked).decode().strip()
    except UserError:
        return None


def nearest(name: str, known: list[str], count: int = 1) -> str:
    """` (did you mean …?)` with the nearest of the known names, empty where none is near."""
    near = difflib.get_close_matches(name, known, n=count)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
