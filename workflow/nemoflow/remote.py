"""Files at an address of fsspec (s3://, gs://, https://, ...): listing, and reading by ranges.

Credentials and endpoints come from the environment (AWS_*, GOOGLE_APPLICATION_CREDENTIALS,
FSSPEC_S3_ANON and the like), never from a file of the repository.
"""

import errno
import io
import sys
from collections.abc import Callable
from glob import has_magic
from typing import Any, BinaryIO, TypeVar

from nemoflow.errors import UserError
from nemoflow.network import BUSY, retried
from nemoflow.source_file import READABLE, UNREADABLE, SourceFile

T = TypeVar("T")

AHEAD = 8 << 20  # bytes
ACCESS = (
    "put credentials into the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
    " FSSPEC_S3_ANON=true for a public bucket; GOOGLE_APPLICATION_CREDENTIALS)"
)
# What the packages behind fsspec raise besides OSError, by module.
FAULTS = {
    "aiohttp": "ClientError",
    "azure.core.exceptions": "AzureError",
    "botocore.exceptions": "BotoCoreError",
    "gcsfs.retry": "HttpError",
    "google.auth.exceptions": "GoogleAuthError",
}
# No passing fault of a network.
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError)


def list_remote(url: str) -> list[SourceFile]:
    """The files at an address: one file, all below a folder, or those of a glob.

    Names are relative to the file's folder, the folder, or the glob's fixed beginning; the digest
    is the store's etag. UserError where there is nothing to read, or data of a kind that cannot
    be read.
    """
    store, place = _store(url)
    found = _asked(url, lambda: _find(store, place))
    root = _root(place)
    names = {path.removeprefix(root).lstrip("/"): path for path in sorted(found)}
    names = {name: path for name, path in names.items() if "/." not in f"/{name}"}
    refused = () if has_magic(place) else UNREADABLE
    left_out = [
        n for n in names if not n.endswith(READABLE) and (not refused or n.endswith(refused))
    ]
    if left_out:
        raise UserError(
            f"source url {url}: {left_out[0]} cannot be read; rows come from"
            f" {', '.join(READABLE)}: name the others with a glob"
        )
    files = [
        _described(name, path, store, found[path])
        for name, path in names.items()
        if name.endswith(READABLE)
    ]
    if not files:
        raise UserError(f"source url {url}: no such file, and no {', '.join(READABLE)} there")
    return files


def check_remote(file: SourceFile, url: str) -> None:
    """UserError unless the listed file is still there, of the same size and etag."""
    store, place = _store(url)
    path = f"{_root(place)}/{file.path}"
    now = _described(
        file.path, path, store, _asked(f"{url}: {file.path}", lambda: store.info(path))
    )
    if now != file:
        raise UserError(
            f"{url}: {file.path} has {now.bytes} bytes and {now.digest}, the plan says"
            f" {file.bytes} bytes and {file.digest}: it was changed after the plan was made; put"
            " the old file back, or make the plan again"
        )


def open_remote(file: SourceFile, url: str) -> BinaryIO:
    """A file at an address: each read asks for exactly the bytes that are wanted.

    Of a compressed file, which is read in small pieces from beginning to end, AHEAD at a time.
    """
    stored = RemoteFile(file, url)
    return io.BufferedReader(stored, AHEAD) if file.compressed else stored  # type: ignore


class RemoteFile(io.RawIOBase):
    """A listed file in a store; reads that fail are tried again, and then are a UserError."""

    def __init__(self, file: SourceFile, url: str):
        self.name = f"{url}: {file.path}"
        store, place = _store(url)
        path = f"{_root(place)}/{file.path}"
        self._file = _asked(self.name, lambda: store.open(path, "rb", cache_type="none"))
        self._size, self._position = file.bytes, 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte; nothing is asked of the store."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as fit, by one request."""
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        block = _asked(self.name, lambda: self._range(self._position, end))
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)

    def close(self) -> None:
        """Let go of the connection."""
        if not self.closed:
            self._file.close()
        super().close()

    def _range(self, start: int, end: int) -> bytes:
        try:
            self._file.seek(start)
            block = self._file.read(end - start)
        except ValueError as error:  # fsspec's word for a web server without ranges
            raise UserError(
                f"{self.name}: {error}; download it, and name the copy: {{local: DIR}}"
            ) from error
        if len(block) != end - start:
            raise OSError(f"{len(block)} of {end - start} bytes came")
        return block


def _store(url: str) -> tuple[Any, str]:
    """(file system, path in it) of an address."""
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    try:
        store, place = url_to_fs(url)
    except ImportError as error:
        package = known_implementations[url.split("://")[0]]["class"].split(".")[0]
        raise UserError(f"{url}: {error}: pip install {package}") from error
    except (ValueError, *_faults()) as error:
        raise UserError(f"{url}: {error}") from error
    store.invalidate_cache()
    return store, place.rstrip("/")


def _find(store: Any, place: str) -> dict[str, dict[str, Any]]:
    """{path: what the store says of it} of files; one that says no size is asked of each."""
    if has_magic(place):
        found = store.glob(place, detail=True)
    elif place.endswith(READABLE):
        found = {place: store.info(place)}
    else:
        found = store.find(place, detail=True)
    files = {path: told for path, told in found.items() if told["type"] == "file"}
    return {
        path: told if told.get("size") is not None else store.info(path)
        for path, told in files.items()
    }


def _root(place: str) -> str:
    """A file's folder, the folder itself, or what comes before a glob's first wildcard."""
    if has_magic(place):
        parts = place.split("/")
        return "/".join(parts[: [has_magic(part) for part in parts].index(True)])
    return place.rpartition("/")[0] if place.endswith(READABLE) else place


def _described(name: str, path: str, store: Any, told: dict[str, Any]) -> SourceFile:
    if told.get("size") is None:
        raise UserError(f"{path}: the server does not say how large it is; name a copy of it")
    etag = told.get("ETag") or told.get("etag") or store.checksum(path)
    return SourceFile(name, told["size"], f"etag:{str(etag).strip(chr(34))}")


def _asked(what: str, call: Callable[[], T]) -> T:
    """The result of a call to a store, tried again while the network fails, or a UserError."""
    try:
        return retried(call, _faults(), _passes)
    except FileNotFoundError as error:
        raise UserError(f"{what}: there is no such file, or no such bucket") from error
    except (ValueError, *_faults()) as error:
        if getattr(error, "errno", None) == errno.EBUSY:  # s3fs: of another etag than when opened
            raise UserError(f"{what} was changed while it was read; make the plan again") from error
        refused = isinstance(error, PermissionError) or _status(error) in (401, 403)
        about = ACCESS if refused or "redential" in str(error) else "run the same command again"
        raise UserError(f"{what}: {error or type(error).__name__}; {about}") from error


def _faults() -> tuple[type[Exception], ...]:
    """What the packages that are loaded can raise."""
    loaded = {name: sys.modules[name] for name in FAULTS if name in sys.modules}
    return (OSError, *(getattr(module, FAULTS[name]) for name, module in loaded.items()))


def _passes(error: Exception) -> bool:
    if isinstance(error, LASTING) or getattr(error, "errno", None) == errno.EBUSY:
        return False
    if "redential" in str(error):
        return False
    status = _status(error)
    return status is None or status in BUSY


def _status(error: Exception) -> int | None:
    """The HTTP status of a fault, where it has one."""
    status = getattr(error, "status", getattr(error, "code", None))
    return status if isinstance(status, int) else None
