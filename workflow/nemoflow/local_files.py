"""Files of this machine: those of a file's name, a folder or a glob, and built-in ones."""

import glob
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemoflow import builtin
from nemoflow.digests import digest_of, digests_of
from nemoflow.errors import UserError
from nemoflow.files import digest
from nemoflow.source_file import READABLE, UNREADABLE, SourceFile


def list_local(pattern: str, cache: Path) -> list[SourceFile]:
    """The files of a file's name, a folder (with all below it) or a glob, as sizes and sha256.

    Names are relative to the folder, or to the glob's fixed beginning. UserError where there is
    nothing to read, or data of a kind that cannot be read.
    """
    root, paths = _found(pattern)
    digests = digests_of(paths, cache)
    return [
        SourceFile(path.relative_to(root).as_posix(), path.stat().st_size, found)
        for path, found in zip(paths, digests, strict=True)
    ]


def list_builtin(source: dict[str, Any], cache: Path) -> list[SourceFile]:
    """The one file of a built-in source, made anew; its name does not say where `cache` lies."""
    path = _make(source, cache)
    return [SourceFile(_name(source), path.stat().st_size, digest_of(path, cache))]


def check_local(file: SourceFile, pattern: str, cache: Path) -> Path:
    """Where a listed file lies; UserError unless it is still the one that was listed."""
    path = _root(pattern) / file.path
    _check(path, file, cache, "it was changed after the plan was made")
    return path


def check_builtin(file: SourceFile, source: dict[str, Any], cache: Path) -> Path:
    """Where a built-in file lies, made again where it is missing; UserError where it differs."""
    path = Path(cache) / file.path
    if not path.is_file() or digest_of(path, cache) != file.digest:
        _make(source, cache)
    why = "it is generated, so another version of nemoflow or of Python made the plan"
    _check(path, file, cache, why)
    return path


def _check(path: Path, file: SourceFile, cache: Path, why: str) -> None:
    if not path.is_file():
        raise UserError(f"{path} does not exist any more; put it back, or make the plan again")
    size, found = path.stat().st_size, digest_of(path, cache)
    if (size, found) != (file.bytes, file.digest):
        raise UserError(
            f"{path} has {size} bytes and {found}, the plan says {file.bytes} bytes and"
            f" {file.digest}: {why}; put the old file back, or make the plan again"
        )


def _found(pattern: str) -> tuple[Path, list[Path]]:
    """(folder that names are relative to, files) of a file, a folder or a glob."""
    root, left_out = _root(pattern), []
    if os.path.isdir(pattern):
        every = list(_below(root))
        found = [path for path in every if path.name.endswith(READABLE)]
        left_out = [path for path in set(every) - set(found) if path.name.endswith(UNREADABLE)]
    elif os.path.isfile(pattern):
        found = [Path(pattern)]
    else:
        named = glob.glob(pattern, recursive=True)
        found = [Path(name) for name in named if not os.path.isdir(name)]
    if broken := [path for path in found if not path.is_file()]:
        raise UserError(
            f"source local {pattern}: {min(broken)} is no file, or a link to nothing; mend it, or"
            " take it away"
        )
    left_out += [path for path in found if not path.name.endswith(READABLE)]
    if left_out:
        raise UserError(
            f"source local {pattern}: {min(left_out)} cannot be read; rows come from"
            f" {', '.join(READABLE)}: convert it, take it away, or name the others with a glob"
        )
    if not found:
        raise UserError(f"source local {pattern}: no such file, and no {', '.join(READABLE)} there")
    return root, sorted(found)


def _root(pattern: str) -> Path:
    """The folder itself, a file's folder, or the folders before a glob's first wildcard."""
    path = Path(pattern)
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    return Path(*fixed)


def _below(root: Path) -> Iterator[Path]:
    """The files in a folder and all below it, by links as well; hidden ones are left out."""
    for name, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        folder = Path(name)
        above = folder.resolve()
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not above.is_relative_to((folder / name).resolve())
        ]
        yield from (folder / name for name in files if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise error  # else a folder that cannot be read is left out in silence


def _name(source: dict[str, Any]) -> str:
    if not isinstance(source.get("count"), int):
        raise UserError(f"source builtin {source['builtin']}: say how many rows with count")
    return f"builtin/{source['builtin']}-{digest(_arguments(source))}.jsonl"


def _arguments(source: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": source["builtin"],
        "seed": source.get("seed") or 0,
        "count": source["count"],
        "split": source.get("split") or "train",
    }


def _make(source: dict[str, Any], cache: Path) -> Path:
    """Write a built-in source as JSON lines into `cache`, whole or not at all."""
    path = Path(cache) / _name(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            for row in builtin.rows(**_arguments(source)):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
