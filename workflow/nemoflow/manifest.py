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
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, sha256_of, write_json, write_whole

FORMAT = 1
PARTS = ".parts"  # X.parts/0001.json is the manifest of X/0001/


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


def tree_md5(files: Iterable[dict[str, Any]]) -> str:
    """The md5 that `dvc add` writes for a folder with these files.

    DVC hashes a JSON list of {md5, relpath} sorted by relpath (dvc-data, hashfile/tree.py).
    """
    entries = [{"md5": file["md5"], "relpath": file["path"]} for file in files]
    text = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode()).hexdigest() + ".dir"


def list_bytes(manifest: str | Path, trust_stamp: bool = True) -> list[dict[str, Any]]:
    """[{path, size, md5}] of the bytes on disk, sorted by path.

    Only files whose size or mtime differ from the stamp are read, by several threads: hashlib
    releases the interpreter's lock.
    """
    known = read_json(stamp(manifest)) if trust_stamp and stamp(manifest).exists() else {}
    record = hash_folder(payload(manifest), known)
    if record != known:
        write_json(stamp(manifest), record)
    return [{"path": name, "size": r[0], "md5": r[2]} for name, r in sorted(record.items())]


def hash_folder(folder: Path, known: dict[str, list]) -> dict[str, list]:
    """{path: [size, mtime_ns, md5]} of a folder; files that are as `known` says are not read."""
    found: dict[str, list[int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            found[path.relative_to(folder).as_posix()] = [status.st_size, status.st_mtime_ns]
    stale = [name for name, now in found.items() if known.get(name, [])[:2] != now]
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
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
        UserError: it is missing, is no manifest, or its md5 is not that of its file list.
    """
    try:
        content = read_json(manifest)
    except FileNotFoundError:
        raise UserError(f"{manifest}: there is no such product; build it first") from None
    except ValueError:
        raise UserError(f"{manifest}: not JSON; git checkout it, or rebuild") from None
    if not isinstance(content, dict) or "identity" not in content:
        raise UserError(f"{manifest}: not a manifest of nemoflow; git checkout it, or rebuild")
    if "md5" in content and content["md5"] != tree_md5(content["files"]):
        raise UserError(
            f"{manifest}: edited by hand: its md5 does not match its file list;"
            f" git checkout {manifest}, or remove it to rebuild"
        )
    return content


def pointer_md5(manifest: str | Path) -> str | None:
    """The md5 in the product's `.dvc` file, None where it was never sealed."""
    pointer = Path(manifest).with_suffix(".dvc")
    if not pointer.exists():
        return None
    for line in pointer.read_text().splitlines():
        if line.strip(" -").startswith("md5:"):
            return line.partition("md5:")[2].strip()
    return None


def need(manifests: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The contents of input manifests, once their bytes are known to be the right ones.

    Raises:
        UserError: bytes are missing or of another build; says which, and the ways out.
    """
    contents = [read(manifest) for manifest in manifests]
    for manifest, content in zip(manifests, contents, strict=True):
        if "md5" in content and (problem := wrong_bytes(manifest, content)):
            raise UserError(f"{payload(manifest)}: {problem}\n{ways_out(manifest, content)}")
    return contents


def wrong_bytes(manifest: str | Path, content: dict[str, Any]) -> str | None:
    """What is wrong with the bytes beside a manifest, or None."""
    expected = {file["path"]: file for file in content["files"]}
    found = {file["path"]: file for file in list_bytes(manifest)}
    if missing := sorted(set(expected) - set(found)):
        return f"{len(missing)} of {len(expected)} files are missing ({missing[0]}, …)"
    if foreign := sorted(set(found) - set(expected)):
        return f"holds {len(foreign)} files that are not of this build ({foreign[0]}, …)"
    changed = [path for path in sorted(expected) if expected[path] != found[path]]
    if changed:
        return (
            f"the bytes are not those of {manifest}: of another build, or changed"
            f" ({len(changed)} of {len(expected)} files, {changed[0]} first)"
        )
    return None


def ways_out(manifest: str | Path, content: dict[str, Any]) -> str:
    """What to do about bytes that are not there."""
    sealed = pointer_md5(manifest)
    pointer = Path(manifest).with_suffix(".dvc")
    rebuild = f"  rebuild: rm {manifest} {last(manifest)}, then ask Snakemake for {manifest}"
    if sealed == content["md5"]:
        return f"  get them: dvc pull {pointer}\n{rebuild}"
    state = f"{pointer} points to another build" if sealed else "never sealed with DVC"
    return f"  {state}: copy the bytes from where they were built, or\n{rebuild}"
