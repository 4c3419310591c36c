"""Who refers to what: the builds and objects of which manifests and pointers tell.

Asked are the working tree, git's index, and HEAD and every branch, tag and remote-tracking branch
of all worktrees. Each distinct file is read once, however many of them hold it.
"""

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from nemoflow.errors import UserError
from nemoflow.files import digest
from nemoflow.manifest import PARTS
from nemoflow.provenance import removed
from nemoflow.revision import git
from nemoflow.storage import objects

MD5 = re.compile(r"\bmd5: ([0-9a-f]{32}(?:\.dir)?)\b")
Files = dict[str, str]


@dataclass
class References:
    """What some manifests and pointers refer to.

    `builds` is {manifest: {md5 of its folder: {path: md5}}}, `objects` {md5: bytes} of all their
    files and lists of files, `pointed` {md5: a pointer that names it}.
    """

    builds: dict[str, dict[str, Files]] = field(default_factory=lambda: defaultdict(dict))
    objects: dict[str, int] = field(default_factory=dict)
    pointed: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, text: bytes) -> None:
        """Take in a file; what is neither a pointer nor a manifest of bytes says nothing."""
        if is_pointer(path):
            self.pointed |= dict.fromkeys(MD5.findall(text.decode(errors="replace")), path)
        elif content := manifest_in(text):
            files = {file["path"]: file["md5"] for file in content["files"]}
            self.objects |= objects(content)
            self.builds[path][content["md5"]] = files
            if Path(path).parent.suffix == PARTS:
                whole = Path(path).parent.with_suffix(".json").as_posix()
                joined = self.builds[whole].setdefault(PARTS, {})
                joined |= {f"{Path(path).stem}/{name}": md5 for name, md5 in files.items()}

    def cover(self, manifest: str, files: Files) -> bool:
        """Whether all these files, {path: md5}, are of one build of a product."""
        return any(
            files.items() <= build.items() for build in self.builds.get(manifest, {}).values()
        )

    def list_all(self, files: Files) -> bool:
        """Whether all these files are of one build of anything: what they are is known."""
        return any(self.cover(manifest, files) for manifest in self.builds)

    def hold(self, md5: str) -> bool:
        """Whether an object is referred to."""
        return md5 in self.objects or md5 in self.pointed


def is_pointer(path: str) -> bool:
    """Whether a file is one of DVC's that name objects."""
    return path.endswith(".dvc") or Path(path).name == "dvc.lock"


def tells(path: str) -> bool:
    """Whether a small file may refer to bytes."""
    return is_pointer(path) or (path.startswith("results/") and path.endswith(".json"))


def manifest_in(text: bytes) -> dict[str, Any] | None:
    """The manifest of bytes that a JSON file holds, None where it holds something else."""
    try:
        content = json.loads(text)
        whole = all({"path", "size", "md5"} <= file.keys() for file in content["files"])
        return content if whole and "md5" in content else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def working_tree() -> References:
    """What the files that stand here refer to.

    With them the copies of finished manifests that Snakemake has removed and `provenance.put_back`
    will put back.
    """
    found = References()
    told = git("ls-files", "-co", "--exclude-standard", "-z").decode().split("\0")
    parts = Path("results").glob(f"data/tokens/*/*{PARTS}/*.json")
    for path in [*filter(tells, told), *(part.as_posix() for part in parts)]:
        if Path(path).is_file():
            found.add(path, Path(path).read_bytes())
    for record, copy in removed():
        found.add(record["output"], copy.read_bytes())
    return found


def committed() -> References:
    """What the index and all that git has a name for refer to."""
    names: dict[str, set[str]] = defaultdict(set)
    for line in git("ls-files", "-s", "-z").decode().split("\0"):
        if line and tells(line.partition("\t")[2]):
            names[line.split()[1]].add(line.partition("\t")[2])
    for tree in trees():
        for line in git("ls-tree", "-r", "-z", tree).decode().split("\0"):
            if line and tells(line.partition("\t")[2]):
                names[line.split()[2]].add(line.partition("\t")[2])
    found = References()
    for blob, text in blobs(names):
        for path in sorted(names[blob]):
            found.add(path, text)
    return found


def state() -> str:
    """A digest of what git has named and indexed, to know whether that changed."""
    asked = (["for-each-ref"], ["worktree", "list", "--porcelain"], ["ls-files", "-s"])
    return digest([git(*arguments).decode() for arguments in asked])


def trees() -> list[str]:
    """The distinct trees of HEAD, in all worktrees, and of every ref."""
    listed = git("for-each-ref", "--format=%(objectname)").decode().split()
    heads = re.findall(r"^HEAD (\w+)$", git("worktree", "list", "--porcelain").decode(), re.M)
    asked = [f"{commit}^{{tree}}" for commit in dict.fromkeys([*listed, *heads])]
    with git_asked(["cat-file", "--batch-check"], asked) as told:
        answers = [line.decode().split() for line in told]
    return list(dict.fromkeys(name for name, kind, *_ in answers if kind == "tree"))


def blobs(names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The contents of blobs, in one call of git (git-cat-file, BATCH OUTPUT)."""
    with git_asked(["cat-file", "--batch"], names) as told:
        for header in told:
            name, kind, *size = header.decode().split()
            if kind == "blob":
                yield name, told.read(int(size[0]))
                told.readline()


def ignored(folders: Iterable[str]) -> list[str]:
    """Those of some folders that git ignores by name, not those inside of others that it does."""
    with git_asked(["check-ignore", "--no-index", "--stdin"], folders, nothing=1) as told:
        found = set(told.read().decode().splitlines())
    return sorted(
        path for path in found if not any(str(above) in found for above in Path(path).parents)
    )


@contextmanager
def git_asked(arguments: list[str], lines: Iterable[str], nothing: int = 0) -> Iterator[IO[bytes]]:
    """Give lines to a command of git; yields its answer. `nothing` is its code for no answer.

    Raises:
        UserError: it says that it cannot.
    """
    with TemporaryFile() as asked:  # not a pipe: both sides might wait for each other
        asked.write("".join(f"{line}\n" for line in lines).encode())
        asked.seek(0)
        with subprocess.Popen(["git", *arguments], stdin=asked, stdout=subprocess.PIPE) as process:
            yield process.stdout
        if process.returncode not in (0, nothing):
            raise UserError(f"git {arguments[0]} ended with code {process.returncode}")
