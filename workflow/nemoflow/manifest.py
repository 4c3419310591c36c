"""Manifests: what a product is, and whether the bytes beside it are those.

A product is three siblings: `X/` the bytes, `X.json` its manifest, `X.dvc` where DVC keeps it. The
manifest is a pure function of what was built: no time, host, absolute path or duration. Its `md5`
is the one that DVC computes for the folder, so that "of another build" is a comparison of two
strings. A stamp beside the bytes (`.X.stat`: size, mtime and md5 of each file when last read)
makes the full check cost a millisecond while nothing changed.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, sha256_of, write_json, write_whole

FORMAT = 1
THREADS = min(16, os.cpu_count() or 1)  # that hash: hashlib releases the interpreter's lock
PARTS = ".parts"  # X.parts/0001.json is the manifest of X/0001/
MD5 = re.compile("[0-9a-f]{32}")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C is ten times as fast


def payload(manifest: str | Path) -> Path:
    """The folder of bytes that a manifest describes."""
    path = Path(manifest).with_suffix("")
    if path.parent.suffix == PARTS:
        return path.parent.with_suffix("") / path.name
    return path


def stamp(manifest: str | Path) -> Path:
    """The git-ignored file beside a manifest that remembers what was hashed, and when."""
    path = Path(manifest)
    return path.with_name(f".{path.stem}.stat")


def last(output: str | Path) -> Path:
    """The copy of a finished output: Snakemake removes the declared one before a re-run."""
    path = Path(output)
    return path.with_name(f".{path.name}.last")


def md5_of(path: Path) -> str:
    """The md5 of a file's bytes, hexadecimal; the name that DVC gives its content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def tree_text(files: Iterable[dict[str, Any]]) -> str:
    """The list of a folder's files as DVC stores it: JSON of {md5, relpath} sorted by relpath.

    Its md5 names the folder (dvc-data, hashfile/tree.py).
    """
    entries = [{"md5": file["md5"], "relpath": file["path"]} for file in files]
    return json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)


def tree_md5(files: Iterable[dict[str, Any]]) -> str:
    """The md5 that `dvc add` writes for a folder with these files."""
    return hashlib.md5(tree_text(files).encode()).hexdigest() + ".dir"


def list_bytes(manifest: str | Path, trust_stamp: bool = True) -> list[dict[str, Any]]:
    """[{path, size, md5}] of the bytes on disk, sorted by path.

    Only files whose size or mtime differ from the stamp are read, by several threads: hashlib
    releases the interpreter's lock.
    """
    known = read_stamp(manifest) if trust_stamp else {}
    record = hash_folder(payload(manifest), known)
    if record != known:
        write_json(stamp(manifest), record)
    return [{"path": name, "size": r[0], "md5": r[2]} for name, r in sorted(record.items())]


def read_stamp(manifest: str | Path) -> dict[str, list]:
    """{path: [size, mtime_ns, md5]} as last read; empty where no stamp can be read."""
    try:
        known = read_json(stamp(manifest))
    except (FileNotFoundError, ValueError):
        return {}
    entries = known.values() if isinstance(known, dict) else [None]
    return known if all(isinstance(e, list) and len(e) == 3 for e in entries) else {}


def remember(manifest: str | Path, digests: Mapping[str, str]) -> None:
    """Write the stamp of bytes whose md5 was taken while they were written: {path: md5}."""
    folder, record = payload(manifest), {}
    for name, md5 in digests.items():
        status = (folder / name).stat()
        record[name] = [status.st_size, status.st_mtime_ns, md5]
    write_json(stamp(manifest), record)


def hash_folder(folder: Path, known: dict[str, list]) -> dict[str, list]:
    """{path: [size, mtime_ns, md5]} of a folder; files that are as `known` says are not read."""
    found: dict[str, list[int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            found[path.relative_to(folder).as_posix()] = [status.st_size, status.st_mtime_ns]
    stale = [name for name, now in found.items() if known.get(name, [])[:2] != now]
    with ThreadPoolExecutor(THREADS) as pool:
        hashed = dict(zip(stale, pool.map(lambda name: md5_of(folder / name), stale), strict=True))
    return {name: [*now, hashed.get(name) or known[name][2]] for name, now in found.items()}


def write(
    manifest: str | Path,
    identity: dict[str, Any],
    inputs: Iterable[str | Path] = (),
    **facts: Any,
) -> None:
    """Write the manifest of a product whose bytes, if it has any, are finished and in place.

    `facts` are what the stage counted; the identity is that of the stage's spec.
    """
    content = {
        "format": FORMAT,
        "spec": digest(identity),
        "identity": identity,
        "inputs": {str(path): sha256_of(path) for path in inputs},
        **facts,
    }
    if payload(manifest).is_dir():
        files = list_bytes(manifest)
        size = sum(file["size"] for file in files)
        content |= {"files": files, "size": size, "md5": tree_md5(files)}
    write_json(manifest, content)


def keep(outputs: Iterable[str | Path]) -> None:
    """Keep copies of a finished stage's declared outputs, for `provenance.put_back`."""
    for output in outputs:
        if PARTS not in str(output):
            write_whole(last(output), Path(output).read_bytes())


def read(manifest: str | Path) -> dict[str, Any]:
    """A manifest's content.

    Raises:
        UserError: it is missing, or as `fault` says.
    """
    try:
        content = read_json(manifest)
    except FileNotFoundError:
        raise UserError(f"{manifest}: there is no such product; build it first") from None
    except ValueError:
        raise UserError(f"{manifest}: not JSON; git checkout it, or rebuild") from None
    if problem := fault(content):
        raise UserError(f"{manifest}: {problem}; git checkout {manifest}, or remove it to rebuild")
    return content


def fault(content: Any) -> str | None:
    """What is wrong with a manifest in itself, or None."""
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), dict) for key in ("identity", "inputs")
    ):
        return "not a manifest of nemoflow"
    if content.get("spec") != digest(content["identity"]):
        return "edited by hand: its spec is not the digest of its identity"
    if "md5" not in content:
        return None
    files = content.get("files")
    if not isinstance(files, list) or not all(map(is_entry, files)):
        return "edited by hand: its files are not a list of path, size and md5"
    if content["md5"] != tree_md5(files):
        return "edited by hand: its md5 does not match its file list"
    if content.get("size") != sum(file["size"] for file in files):
        return "edited by hand: its size is not that of its files"
    return None


def is_entry(file: Any) -> bool:
    """Whether an entry of a manifest's files is one; its path may not lead out of the product."""
    return (
        isinstance(file, dict)
        and isinstance(path := file.get("path"), str)
        and not {"", ".", ".."}.intersection(path.split("/"))
        and isinstance(file.get("size"), int)
        and MD5.fullmatch(str(file.get("md5"))) is not None
    )


def pointer_md5(manifest: str | Path) -> str | None:
    """The md5 in the product's `.dvc` file; None where none is there, or none that leads to it."""
    told = pointed(Path(manifest).with_suffix(".dvc")) or {}
    return told.get("md5") if told.get("path") == payload(manifest).name else None


def pointed(pointer: Path) -> dict[str, Any] | None:
    """What a `.dvc` file says of its folder; None where there is none to be read."""
    try:
        (out,) = yaml.load(pointer.read_text(), LOADER)["outs"]
    except (FileNotFoundError, yaml.YAMLError, ValueError, TypeError, KeyError):
        return None
    return out if isinstance(out, dict) else None


def write_pointer(manifest: str | Path, content: dict[str, Any]) -> None:
    """Write the `.dvc` file of a product, byte for byte as `dvc add` does."""
    outs = {
        "md5": content["md5"],
        "size": content["size"],
        "nfiles": len(content["files"]),
        "hash": "md5",
        "path": payload(manifest).name,
    }
    write_whole(
        Path(manifest).with_suffix(".dvc"), yaml.safe_dump({"outs": [outs]}, sort_keys=False)
    )
