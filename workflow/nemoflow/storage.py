"""DVC's cache and remote: which bytes lie there, and putting them there.

`dvc push` and `dvc status -c` take the list of a folder's files on a remote as proof that the files
are there (dvc-data, hashfile/status.py): a remote that lost some is "in sync" with rc 0. So objects
are looked at one by one here, and read before they are sent. DVC is imported where it is needed,
since that takes half a second.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tqdm import tqdm

from nemoflow.errors import UserError
from nemoflow.manifest import THREADS, md5_of, tree_text
from nemoflow.progress import in_bytes

SECRET = re.compile(r"(?<!ask_)password|secret|token|account_key|connection_string")


def objects(content: dict[str, Any]) -> dict[str, int]:
    """{md5: bytes} of what DVC stores of a manifest's product: its files, and then their list."""
    files = {file["md5"]: file["size"] for file in content["files"]}
    return files | {content["md5"]: len(tree_text(content["files"]))}


def without_login(url: str) -> str:
    """A URL as it may be shown: no user, password or query."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path, "", ""))


class Storage:
    """The DVC cache and the default remote of this checkout."""

    def __init__(self):
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            self.repo = Repo(".")
        except DvcException as error:
            raise UserError(
                f"DVC cannot work here: {error}. It needs a git repository (git init) and its"
                " own folder .dvc (git checkout .dvc, or dvc init)"
            ) from None

    def cached(self, md5: str) -> Path:
        """Where the cache keeps an object, whether or not it is there."""
        return Path(self.repo.cache.local.oid_to_path(md5))

    def damaged(self, md5s: Iterable[str]) -> list[str]:
        """The objects in the cache whose bytes are not what their names say; all are read."""
        here = [md5 for md5 in dict.fromkeys(md5s) if self.cached(md5).exists()]
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda md5: md5_of(self.cached(md5)), here)
            return [
                md5
                for md5, actual in zip(here, found, strict=True)
                if actual != md5.removesuffix(".dir")
            ]

    def discard(self, md5s: Iterable[str]) -> None:
        """Remove objects from the cache."""
        for md5 in md5s:
            self.cached(md5).unlink(missing_ok=True)

    def keep(self, payload: Path, content: dict[str, Any]) -> None:
        """Put a product's bytes into the cache: each object by rename, the list of files last.

        Objects that are there already are read, and replaced when their bytes are wrong.
        """
        cache, files = self.repo.cache.local, {f["md5"]: f["path"] for f in content["files"]}
        self.discard(self.damaged([*files, content["md5"]]))
        new = [md5 for md5 in files if not self.cached(md5).exists()]
        cache.add(
            [str((payload / files[md5]).absolute()) for md5 in new],
            self.local,
            new,
            hardlink="hardlink" in cache.cache_types,
            check_exists=False,
        )
        self.keep_list(content)

    def keep_list(self, content: dict[str, Any]) -> None:
        """Put a product's list of files into the cache as its manifest has it."""
        md5, text = content["md5"], tree_text(content["files"]).encode()
        path, cache = self.cached(md5), self.repo.cache.local
        if not path.exists() or path.read_bytes() != text:
            self.discard([md5])
            cache.add_bytes(md5, text)
            cache.protect(str(path))

    def refuse_crowded(self, contents: dict[str, dict[str, Any]]) -> None:
        """Raise UserError where a disk lacks room for objects to fetch, or for their copies.

        `contents` is {manifest: content}.
        """
        cache, wanted = Path(self.repo.cache.local.path), {}
        for content in contents.values():
            wanted |= objects(content)
        cache.mkdir(parents=True, exist_ok=True)
        fetched = sum(size for md5, size in wanted.items() if not self.cached(md5).exists())
        claims = [(cache, fetched)]
        for path, content in contents.items():
            if self.links(place := Path(path).parent)[:1] == ["copy"]:
                claims.append((place, content["size"]))
        disks = {place.stat().st_dev: place for place, _ in claims}
        for disk, place in disks.items():
            asked = sum(size for other, size in claims if other.stat().st_dev == disk)
            if asked > (room := shutil.disk_usage(place).free):
                raise UserError(
                    f"{in_bytes(asked)} to pull, but the disk of {place} has room for"
                    f" {in_bytes(room)}"
                )

    def links(self, place: Path) -> list[str]:
        """How files of a folder can be linked with the cache, first the way that is taken.

        Empty where that cannot be tried.
        """
        from dvc_objects.fs.generic import test_links

        cache, probe = self.repo.cache.local, str(place.absolute() / "x")
        try:
            return test_links(cache.cache_types, self.local, cache.path, self.local, probe)
        except OSError:  # a cache of somebody else's
            return []

    def why_absent(self, content: dict[str, Any]) -> str:
        """Why a product could not be pulled, as far as cache and remote tell."""
        absent = {md5: n for md5, n in objects(content).items() if not self.cached(md5).exists()}
        if not absent:
            return "DVC's cache has all of it: bytes here are in the way, or the disk is full"
        try:
            held = self.on_remote(absent)
        except UserError as error:
            return str(error)
        if len(held) == len(absent):
            return f"remote {self.remote_name} holds wrong bytes for it, or cannot be read"
        return f"remote {self.remote_name} lacks {len(absent) - len(held)} of its objects"

    @cached_property
    def local(self) -> Any:
        """DVC's own access to local files."""
        from dvc.fs import localfs

        return localfs

    @cached_property
    def remote(self) -> Any:
        """The default remote.

        Raises:
            UserError: as `remote_name`, or it keeps no objects by digest.
        """
        from dvc.exceptions import DvcException

        name = self.remote_name
        try:
            return self.repo.cloud.get_remote_odb()
        except DvcException as error:
            raise UserError(f"remote {name}: {self.scrubbed(error)}") from None

    @cached_property
    def remote_name(self) -> str:
        """The default remote's name and place, for people.

        Raises:
            UserError: there is none, or a secret of it is in git.
        """
        refuse_secrets(self.repo.config.load_one("repo"))
        name = self.repo.config["core"].get("remote")
        if name not in self.repo.config["remote"]:
            raise UserError(
                "DVC has no default remote here: dvc remote add -d storage URL    (a folder,"
                " s3://bucket/path, …), and dvc remote modify storage verify true"
            )
        return f"{name} ({without_login(self.repo.config['remote'][name]['url'])})"

    def on_remote(self, wanted: dict[str, int]) -> set[str]:
        """Those of {md5: bytes} that the remote holds in full length.

        Raises:
            UserError: the remote cannot be asked.
        """
        names = list(wanted)
        places = [self.remote.oid_to_path(md5) for md5 in names]
        told = self.remote.fs.info(places, return_exceptions=True)
        held = set()
        for md5, info in zip(names, told, strict=True):
            if isinstance(info, FileNotFoundError):
                continue
            if isinstance(info, BaseException):
                raise UserError(f"remote {self.remote_name} cannot be asked: {self.scrubbed(info)}")
            if info["size"] == wanted[md5]:
                held.add(md5)
        return held

    def send(self, sizes: dict[str, int]) -> None:
        """Upload objects from the cache, in the order given, batch after batch.

        Raises:
            UserError: an object did not arrive.
        """
        failed: dict[str, BaseException] = {}
        total = sum(sizes.values())
        with tqdm(total=total, unit="B", unit_scale=True, desc="push", disable=None) as bar:
            for batch in batches(sizes):
                paths = [str(self.cached(md5)) for md5 in batch]
                self.remote.add(
                    paths,
                    self.local,
                    batch,
                    check_exists=False,
                    verify=False,  # would read back what was read just before
                    batch_size=self.remote.fs.jobs,
                    on_error=failed.__setitem__,
                )
                bar.update(sum(sizes[md5] for md5 in batch))
                if failed:
                    break
        if failed:
            first = self.scrubbed(next(iter(failed.values())))
            raise UserError(
                f"remote {self.remote_name}: {len(failed)} objects did not arrive ({first})."
                " What arrived stays; the same command sends the rest"
            )

    def scrubbed(self, error: BaseException) -> str:
        """An error in words, without any secret of the remote's settings."""
        text = f"{type(error).__name__}: {error}"
        remote = self.repo.config["remote"][self.repo.config["core"]["remote"]]
        for key, value in remote.items():
            if SECRET.search(key):
                text = text.replace(str(value), "…")
        return text.replace(remote["url"], without_login(remote["url"]))


def batches(sizes: dict[str, int], most: int = 1 << 32) -> Iterator[list[str]]:
    """The names in order, cut where a batch would exceed `most` bytes."""
    batch, held = [], 0
    for name, size in sizes.items():
        if batch and held + size > most:
            yield batch
            batch, held = [], 0
        batch.append(name)
        held += size
    if batch:
        yield batch


def refuse_secrets(config: dict[str, Any]) -> None:
    """Raise UserError for a secret in `.dvc/config`, which goes to git."""
    for name, remote in config.get("remote", {}).items():
        keys = [key for key in remote if SECRET.search(key)]
        if urlsplit(str(remote.get("url", ""))).password:
            keys.append("url")
        if keys:
            raise UserError(
                f".dvc/config: {keys[0]} of remote {name} is a secret, and this file goes to git."
                f" Move it: dvc remote modify --local {name} {keys[0]} …, then"
                f" dvc remote modify --unset {name} {keys[0]}; or use environment variables."
                " If it was committed, it is known: change it"
            )


def dvc(*arguments: str) -> str | None:
    """Run a DVC command, waiting for whoever holds the repository; its error, None if it is well.

    On a terminal DVC draws its own bars; it is asked nothing, so that it refuses where it would ask
    whether bytes that it does not hold may go.
    """
    shown = sys.stderr.isatty()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        stdout=sys.stderr if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    if done.returncode == 0:
        return None
    lines = (done.stdout or "it has said why above").strip().splitlines()
    return " ".join(line.removeprefix("ERROR: ") for line in lines[-4:])
