"""What a listed file of a source is, and which files hold rows."""

from dataclasses import dataclass
from typing import NamedTuple

COMPRESSED = (".gz", ".zst")
PARQUET = ".parquet"
READABLE = (
    *(kind + packing for kind in (".jsonl", ".json") for packing in ("", *COMPRESSED)),
    PARQUET,
)
# Files of these kinds in a folder hold data that would be left out in silence.
UNREADABLE = (".arrow", ".csv", ".tsv", ".txt", ".zst", ".bz2", ".xz", ".zip", ".gz", ".tar")


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    `path` is its name within the source, `bytes` its stored size. `digest` says which bytes they
    are: "sha256:HEX"; "git:HEX", the blob id of a small file of the hub; "etag:TEXT" of an object
    in a store.
    """

    path: str
    bytes: int
    digest: str

    @property
    def compressed(self) -> bool:
        """Whether the file can only be read from its beginning."""
        return self.path.endswith(COMPRESSED)

    @property
    def parquet(self) -> bool:
        """Whether the file is Parquet; every other one holds JSON lines."""
        return self.path.endswith(PARQUET)


class Place(NamedTuple):
    """Where a row came from: the file's name within the source, and where in it.

    `offset` is the byte at which the line begins in the decompressed file, or the row's number
    in a Parquet file, from 0.
    """

    path: str
    offset: int
