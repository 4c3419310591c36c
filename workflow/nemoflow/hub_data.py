"""Repositories of the Hugging Face hub: pinning them to a commit, listing, downloading.

Files come by plain HTTP and not through huggingface_hub's cache: that begins a download that was
killed from the first byte again. A file is believed when its size and digest are those of the
listing. HF_ENDPOINT names another hub, HF_TOKEN opens what is gated or private.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from nemoflow.digests import digest_of
from nemoflow.errors import UserError
from nemoflow.locks import soon_taken
from nemoflow.network import BUSY, retried
from nemoflow.progress import Bytes, in_bytes, say
from nemoflow.source_file import SourceFile

T = TypeVar("T")

COMMIT = re.compile(r"[0-9a-f]{40}")


def commit_of(repository: str, revision: str | None, kind: str = "dataset") -> str:
    """The commit that a branch or tag names now (None: main); a commit is not asked for.

    `kind` is dataset or model. UserError where repository or revision do not exist.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    revision = revision or "main"
    api = _api()
    told = _asked(
        lambda: api.repo_info(repository, repo_type=kind, revision=revision),
        *(repository, revision, kind),
    )
    return told.sha


def list_repository(repository: str, commit: str, kind: str = "dataset") -> list[SourceFile]:
    """All files of a repository at a commit, sorted by path, hidden ones left out."""
    from huggingface_hub.hf_api import RepoFile

    with _telling(repository, commit, kind):  # it asks a busy hub again by itself
        tree = _api().list_repo_tree(repository, recursive=True, revision=commit, repo_type=kind)
        entries = list(tree)
    files = [
        SourceFile(
            entry.path,
            entry.size,
            f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}",
        )
        for entry in entries
        if isinstance(entry, RepoFile) and not f"/{entry.path}".count("/.")
    ]
    return sorted(files, key=lambda file: file.path)


def check_access(repository: str, commit: str, path: str, kind: str = "dataset") -> None:
    """UserError unless a file may be downloaded: of a gated repository the list is public."""
    from huggingface_hub import get_hf_file_metadata

    url = _url(repository, commit, path, kind)
    _asked(lambda: get_hf_file_metadata(url), repository, commit, kind)


def download(
    file: SourceFile, repository: str, commit: str, cache: Path, kind: str = "dataset"
) -> Path:
    """Where a file of a repository lies in the cache, downloaded unless it is there.

    What is there of a download that was interrupted is kept, and only the rest is asked for.
    UserError when what came is not the listed file.
    """
    method, _, name = file.digest.partition(":")
    path = Path(cache) / "hub" / repository / name[:16] / Path(file.path).name
    if _is(path, file, cache, method):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        for _ in range(2):  # a part that lay on a failing disk spoils the first
            if not path.is_file():
                _fetch(path, file, repository, commit, kind)
            if _is(path, file, cache, method):
                return path
            path.unlink()
    raise UserError(
        f"{repository}: {file.path} at {commit[:12]} is not what the hub's list says"
        f" ({in_bytes(file.bytes)}, {file.digest}), twice; a proxy on the way may change it"
    )


def _asked(call: Callable[[], T], repository: str, revision: str, kind: str) -> T:
    """The result of a call, made again while the hub is busy or away."""
    import httpx2

    with _telling(repository, revision, kind):
        return retried(call, (httpx2.HTTPError, OSError), _passes)


@contextmanager
def _telling(repository: str, revision: str, kind: str) -> Iterator[None]:
    """Turn what the hub refuses, and what the network fails in, into a UserError."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise UserError(_told(error, repository, revision, kind)) from error
    except (httpx2.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # this machine's
        raise UserError(
            f"{_endpoint()} cannot be reached for {repository}: {error or type(error).__name__};"
            " run the same command again when it can, or name a copy: {local: DIR}"
        ) from error


def _told(error: Any, repository: str, revision: str, kind: str) -> str:
    """What a refusal of the hub means, and what to do."""
    from huggingface_hub import errors, get_token

    page = f"{_endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repository}"
    who = "the account of HF_TOKEN" if get_token() else "an account, and set HF_TOKEN to its token"
    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return f"{repository} is gated: accept its terms at {page} with {who}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision}; the page {page}/commits lists them"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no {kind} {repository} at {_endpoint()}, or it is private: mend the name, or"
            f" open it to {who}"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"{repository} at {revision}: a listed file is not there any more"
    if status in (401, 403):
        return f"{page} refuses with {status}: HF_TOKEN is wrong or too old, or open it to {who}"
    return f"{page} answers {status}, again and again; run the same command again later"


def _passes(error: Exception) -> bool:
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code in BUSY
    return not isinstance(error, errors.OfflineModeIsEnabled) and not getattr(error, "errno", None)


def _fetch(path: Path, file: SourceFile, repository: str, commit: str, kind: str) -> None:
    """Download into a partial file beside `path`, from where it ends, and rename it."""
    partial = path.with_name(f".{path.name}.partial")
    url = _url(repository, commit, file.path, kind)
    if partial.is_file() and partial.stat().st_size > file.bytes:
        partial.unlink()
    # Unbuffered: what has come is there, whatever becomes of this process.
    with (
        open(partial, "ab", buffering=0) as out,
        Bytes(f"downloading {file.path}", file.bytes) as progress,
    ):
        begun = out.tell()
        after = f", going on after {in_bytes(begun)}" if begun else ""
        say(f"downloading {repository} {file.path}, {in_bytes(file.bytes)}{after}")
        progress.add(begun)
        while out.seek(0, os.SEEK_END) < file.bytes:
            _asked(lambda: _receive(url, out, progress), repository, commit, kind)
        os.fsync(out.fileno())
    partial.replace(path)


def _receive(url: str, out: BinaryIO, progress: Bytes) -> None:
    """Append what the hub sends of a file from the end of `out` on, as far as it comes."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    begun = out.seek(0, os.SEEK_END)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    try:
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            if begun and response.status_code != 206:  # all of it comes
                out.truncate(0)
            for block in response.iter_raw():
                out.write(block)
                progress.add(len(block))
    except httpx2.TransportError:
        if out.seek(0, os.SEEK_END) <= begun:
            raise
    if out.seek(0, os.SEEK_END) <= begun:
        raise OSError("nothing came")


def _is(path: Path, file: SourceFile, cache: Path, method: str) -> bool:
    """Whether the listed file lies there."""
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    return digest_of(path, cache, method) == file.digest


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file that jobs may download side by side."""
    with open(path.with_name(f".{path.name}.lock"), "a+") as lock:
        if not soon_taken(lock):
            say(f"{path.name}: another job downloads it, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint())


def _url(repository: str, commit: str, path: str, kind: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, path, repo_type=kind, revision=commit, endpoint=_endpoint())


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
