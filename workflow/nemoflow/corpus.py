"""Sources of rows: listing them, pinning them by digest, reading them.

A source is a mapping with one of these keys (keys that are None count as absent):

    {"builtin": name, "count": N, "seed": 0, "split": "train"}   a generator of nemoflow.builtin
    {"local": "file, folder, or glob"}                           .jsonl, .json, and their .gz
    {"hub": repository, ...}                                     refused in this release

A row is a JSON object on a line of its own. Blank lines are no rows. A row's place is the byte
offset of its line in the decompressed file.
"""

import glob
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nemoflow import builtin
from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, write_json
from nemoflow.jsonl import line_number, lines, parse
from nemoflow.rows import RowCount

Source = dict[str, Any]
Row = dict[str, Any]

READABLE = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
# Files of these kinds in a folder hold data that would be left out in silence.
UNREADABLE = (".parquet", ".arrow", ".csv", ".tsv", ".txt", ".zst", ".bz2", ".xz", ".zip", ".gz")


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its name within the source, its stored size and the md5 of its bytes."""

    path: str
    bytes: int
    md5: str

    @property
    def compressed(self) -> bool:
        """Whether the file can only be read from its beginning."""
        return self.path.endswith(".gz")


class Place(NamedTuple):
    """Where a row came from: file name within the source, byte offset in the decompressed file."""

    path: str
    offset: int


def kind_of(source: Source) -> str:
    """Either builtin or local; UserError for a hub source, for none and for several."""
    kinds = [kind for kind in ("builtin", "local", "hub") if source.get(kind) is not None]
    if len(kinds) != 1:
        raise UserError(f"source {source}: give exactly one of builtin, local, hub")
    if kinds == ["hub"]:
        raise UserError(
            f"source hub {source['hub']}: reading from the hub is not available in this release;"
            f" download it (hf download {source['hub']} --repo-type dataset --local-dir DIR),"
            " then name the files: {local: DIR}"
        )
    return kinds[0]


def list_files(source: Source, cache: Path) -> list[SourceFile]:
    """The files of a source, sorted by path, with sizes and digests.

    A built-in source is made anew and put into `cache`; its path is a name that does not say
    where `cache` lies. Local paths are relative to the folder, or to the glob's fixed beginning.
    UserError where there is nothing to read, or data of a kind that cannot be read yet.
    """
    if kind_of(source) == "builtin":
        paths = {_builtin_name(source): _make_builtin(source, cache)}
    else:
        root, found = _local_files(source["local"])
        paths = {path.relative_to(root).as_posix(): path for path in found}
    files = [
        SourceFile(name, path.stat().st_size, _md5(path, cache)) for name, path in paths.items()
    ]
    if not any(file.bytes for file in files):
        raise UserError(f"source {_shown(source)}: all its files are empty: {', '.join(paths)}")
    return sorted(files, key=lambda file: file.path)


def read_rows(
    file: SourceFile,
    source: Source,
    cache: Path,
    counts: RowCount | None = None,
    span: tuple[int, int] | None = None,
) -> Iterator[tuple[int, Row]]:
    """The rows of a file as (byte offset in the decompressed file, parsed row).

    `span` (start, end) asks for the lines that start in that range of a plain file. Every row
    is counted in `counts.rows_in`; a line that is not a JSON object is dropped there as
    not_json or not_an_object. Without `counts` such a line is a UserError that names its
    number, as is a file that is not the one that was listed.
    """
    path = _checked(file, source, cache)
    for offset, line in lines(path, file.compressed, span):
        if counts is not None:
            counts.rows_in += 1
        row, fault = parse(line)
        if not fault:
            yield offset, row
        elif counts is not None and fault in counts.first:
            counts.drop(fault)
        else:
            number = line_number(path, file.compressed, offset)
            if counts is None:
                raise UserError(f"{file.path}, line {number}: {fault}: {row}")
            counts.drop(fault, f"{file.path}, line {number}")


def read_source(
    source: Source, files: list[SourceFile], cache: Path, counts: RowCount
) -> Iterator[tuple[Place, Row]]:
    """All rows of a source's files, in the given order, as (place, parsed row); see read_rows."""
    for file in files:
        for offset, row in read_rows(file, source, cache, counts):
            yield Place(file.path, offset), row


def rows(sources: Iterable[Source], cache: Path) -> Iterator[Row]:
    """The rows of several sources, one after the other; a line that is no row is a UserError."""
    for source in sources:
        for file in list_files(source, cache):
            for _, row in read_rows(file, source, cache):
                yield row


def source_files(sources: Iterable[Source], cache: Path) -> list[dict[str, Any]]:
    """[{path, bytes, md5}] of all files of several sources, in their order."""
    return [vars(file) for source in sources for file in list_files(source, cache)]


def texts(sources: Iterable[Source], text_field: str, cache: Path) -> Iterator[str]:
    """The texts of all rows of several sources; UserError for a row that has none."""
    for number, row in enumerate(rows(sources, cache), start=1):
        if not isinstance(row.get(text_field), str):
            raise UserError(f"row {number} of {list(sources)}: no text in field {text_field}")
        yield row[text_field]


def _shown(source: Source) -> str:
    return " ".join(f"{key} {value}" for key, value in source.items() if value is not None)


def _local_files(pattern: str) -> tuple[Path, list[Path]]:
    """(folder that names are relative to, files) of a file, a folder or a glob."""
    root, left_out = _local_root(pattern), []
    if os.path.isdir(pattern):
        every = [path for path in root.rglob("*") if path.is_file() and not _hidden(path, root)]
        found = [path for path in every if path.name.endswith(READABLE)]
        left_out = [path for path in set(every) - set(found) if path.name.endswith(UNREADABLE)]
    elif os.path.isfile(pattern):
        found = [Path(pattern)]
    else:
        found = [Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
    left_out += [path for path in found if not path.name.endswith(READABLE)]
    if left_out:
        raise UserError(
            f"source local {pattern}: {min(left_out)} cannot be read in this release;"
            f" it reads {', '.join(READABLE)}"
        )
    if not found:
        raise UserError(f"source local {pattern}: no such file, and no {', '.join(READABLE)} there")
    return root, found


def _local_root(pattern: str) -> Path:
    """The folder itself, a file's folder, or the folders before a glob's first wildcard."""
    path = Path(pattern)
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    return Path(*fixed)


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _builtin_name(source: Source) -> str:
    if not isinstance(source.get("count"), int):
        raise UserError(f"source builtin {source['builtin']}: say how many rows with count")
    return f"builtin/{source['builtin']}-{digest(_builtin_arguments(source))}.jsonl"


def _builtin_arguments(source: Source) -> dict[str, Any]:
    return {
        "name": source["builtin"],
        "seed": source.get("seed") or 0,
        "count": source["count"],
        "split": source.get("split") or "train",
    }


def _make_builtin(source: Source, cache: Path) -> Path:
    """Write a built-in source as JSON lines into `cache`, whole or not at all."""
    path = Path(cache) / _builtin_name(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            for row in builtin.rows(**_builtin_arguments(source)):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _checked(file: SourceFile, source: Source, cache: Path) -> Path:
    """Where a listed file lies, after its size and digest were found to be the listed ones."""
    if kind_of(source) == "builtin":
        path = Path(cache) / file.path
        if not path.is_file() or _md5(path, cache) != file.md5:
            _make_builtin(source, cache)
        why = "it is generated, so another version of nemoflow or of Python made the plan"
    else:
        path = _local_root(source["local"]) / file.path
        why = "it was changed after the plan was made"
    if not path.is_file():
        raise UserError(f"{path} does not exist any more; put it back, or make the plan again")
    size, md5 = path.stat().st_size, _md5(path, cache)
    if (size, md5) != (file.bytes, file.md5):
        raise UserError(
            f"{path} has {size} bytes and md5 {md5}, the plan says {file.bytes} bytes and md5"
            f" {file.md5}: {why}; put the old file back, or make the plan again"
        )
    return path


def _md5(path: Path, cache: Path) -> str:
    """The md5 of a file, read once: kept in `cache` for as long as size and mtime stay."""
    stat = path.stat()
    state = [stat.st_size, stat.st_mtime_ns]
    stamp = Path(cache) / "digests" / f"{digest(str(path.absolute()))}.json"
    if stamp.is_file() and (known := read_json(stamp))["state"] == state:
        return known["md5"]
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    write_json(stamp, {"state": state, "md5": md5})
    return md5
