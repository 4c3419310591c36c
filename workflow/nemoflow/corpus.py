"""Sources of rows: listing them, pinning them by digest, reading them.

A source is a mapping with one of these keys (keys that are None count as absent):

    {"builtin": name, "count": N, "seed": 0, "split": "train"}   a generator of nemoflow.builtin
    {"local": "file, folder, or glob"}                           files of this machine
    {"hub": repository, "revision", "subset", "split"}           a data set of the Hugging Face hub
    {"url": "s3://bucket/folder"}                                any address that fsspec reads

Files hold JSON lines, plain, .gz or .zst, or are Parquet. A row of JSON lines is a JSON object on
a line of its own; blank lines are no rows. Local files are read where they lie, those of the hub
are downloaded into the cache, objects at an address are read by ranges and not kept.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nemoflow import hub_data, hub_files, jsonl, local_files, parquet, remote
from nemoflow.errors import UserError
from nemoflow.rows import RowCount
from nemoflow.source_file import SourceFile

Source = dict[str, Any]
Row = dict[str, Any]

KINDS = ("builtin", "local", "hub", "url")


def kind_of(source: Source) -> str:
    """One of KINDS; UserError for a source that has none of them, or several."""
    kinds = [kind for kind in KINDS if source.get(kind) is not None]
    if len(kinds) != 1:
        raise UserError(f"source {source}: give exactly one of {', '.join(KINDS)}")
    return kinds[0]


def pin(source: Source) -> Source:
    """The source with a revision of the hub resolved to the commit that it names now."""
    if kind_of(source) != "hub":
        return source
    return source | {"revision": hub_data.commit_of(source["hub"], source.get("revision"))}


def pinned(source: Source) -> Source:
    """What pinning made certain of a source: {"revision": commit} of the hub, else nothing."""
    return {"revision": source["revision"]} if kind_of(source) == "hub" else {}


def list_files(source: Source, cache: Path) -> list[SourceFile]:
    """The files of a source, sorted by path, with sizes and digests.

    A built-in source is made anew and put into `cache`; of the hub nothing is downloaded yet.
    UserError where there is nothing to read, or data of a kind that cannot be read.
    """
    kind = kind_of(source)
    if kind == "builtin":
        files = local_files.list_builtin(source, cache)
    elif kind == "local":
        files = local_files.list_local(source["local"], cache)
    elif kind == "hub":
        files = hub_files.list_hub(pin(source))
    else:
        files = remote.list_remote(source["url"])
    if not any(file.bytes for file in files):
        names = ", ".join(file.path for file in files)
        raise UserError(f"source {_shown(source)}: all its files are empty: {names}")
    return sorted(files, key=lambda file: file.path)


def checked(file: SourceFile, source: Source, cache: Path) -> Path | None:
    """Where a listed file lies on this machine, None for one that stays in its store.

    UserError unless it is still the file that was listed. A file of the hub is downloaded.
    """
    kind = kind_of(source)
    if kind == "builtin":
        return local_files.check_builtin(file, source, cache)
    if kind == "local":
        return local_files.check_local(file, source["local"], cache)
    if kind == "hub":
        pinned = pin(source)
        return hub_data.download(file, pinned["hub"], pinned["revision"], cache)
    remote.check_remote(file, source["url"])
    return None


def opened(file: SourceFile, source: Source, cache: Path) -> BinaryIO:
    """The stored bytes of a listed file, checked, to read and to seek in; nothing is buffered."""
    path = checked(file, source, cache)
    if path is None:
        return remote.open_remote(file, source["url"])
    return open(path, "rb", buffering=0)


def read_rows(
    file: SourceFile,
    source: Source,
    cache: Path,
    counts: RowCount | None = None,
    span: tuple[int, int] | None = None,
) -> Iterator[tuple[int, Row]]:
    """The rows of a file as (offset of its place, row).

    `span` (start, end) in stored bytes asks for the lines that start in that range of a plain
    file, or the row groups of a Parquet file. Every row is counted in `counts.rows_in`; what is
    not a row is dropped there as not_json, not_an_object or not_utf8. Without `counts` it is a
    UserError that names its number, as is a file that is not the one that was listed.
    """
    with opened(file, source, cache) as stored:
        for offset, row, fault in _parsed(stored, file, span):
            if counts is not None:
                counts.rows_in += 1
            if not fault:
                yield offset, row
            elif counts is not None and fault in counts.first:
                counts.drop(fault)
            else:
                where = f"{file.path}, {numbered(file, source, cache, offset)}"
                if counts is None:
                    raise UserError(f"{where}: {fault}: {row}")
                counts.drop(fault, where)


def unread(
    file: SourceFile, source: Source, cache: Path
) -> Iterator[tuple[int, bytes | Row | UnicodeDecodeError]]:
    """(offset of its place, row) of a file's rows as they are stored: a line of JSON, unparsed.

    Or a row of Parquet; text in it that is not UTF-8 gives the error.
    """
    with opened(file, source, cache) as stored:
        yield from parquet.rows(stored) if file.parquet else jsonl.lines(stored, file.path)


def rows(sources: Iterable[Source], cache: Path) -> Iterator[Row]:
    """The rows of several sources, one after the other; a line that is no row is a UserError."""
    for source in sources:
        for file in list_files(source, cache):
            for _, row in read_rows(file, source, cache):
                yield row


def source_files(sources: Iterable[Source], cache: Path) -> list[dict[str, Any]]:
    """[{path, bytes, digest}] of all files of several sources, in their order."""
    return [vars(file) for source in sources for file in list_files(source, cache)]


def facts(sources: Iterable[Source], cache: Path) -> dict[str, Any]:
    """What a manifest says of pinned sources: {"source_files", "pinned": [pinned, ...]}."""
    sources = list(sources)
    return {
        "source_files": source_files(sources, cache),
        "pinned": [pinned(source) for source in sources],
    }


def texts(sources: Iterable[Source], text_field: str, cache: Path) -> Iterator[str]:
    """The texts of all rows of several sources; UserError for a row that has none."""
    for number, row in enumerate(rows(sources, cache), start=1):
        if not isinstance(row.get(text_field), str):
            raise UserError(f"row {number} of {list(sources)}: no text in field {text_field}")
        yield row[text_field]


def _shown(source: Source) -> str:
    return " ".join(f"{key} {value}" for key, value in source.items() if value is not None)


def _parsed(
    stored: BinaryIO, file: SourceFile, span: tuple[int, int] | None
) -> Iterator[tuple[int, Any, str | None]]:
    """(offset, row, None), or (offset, what is wrong, reason to drop it)."""
    if file.parquet:
        for number, row in parquet.rows(stored, span):
            yield number, row, None if isinstance(row, dict) else "not_utf8"
    else:
        for offset, line in jsonl.lines(stored, file.path, span):
            yield offset, *jsonl.parse(line)


def numbered(file: SourceFile, source: Source, cache: Path, offset: int) -> str:
    """The place of a row in words: its row of Parquet, or its line, from 1."""
    if file.parquet:
        return f"row {offset + 1}"
    with opened(file, source, cache) as stored:
        return f"line {jsonl.line_number(stored, file.path, offset)}"
