"""Existing packed Parquet as a mixture: which files a path names, whether they are sound, a copy.

What a row must be is told in `nemoflow.packing`; loss_mask may be list<int8>, as Megatron-Bridge
writes it.
"""

import glob
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from nemoflow import imports, packed_rows, specs
from nemoflow.bins import Bins
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.mixing import SPLITS
from nemoflow.packing import METADATA, counts_of, metadata
from nemoflow.progress import Bytes

ENDS = (".parquet", ".pq")
FOLDERS = {"train": ("train",), "valid": ("valid", "validation", "val")}


def find(written: str) -> dict[str, list[Path]]:
    """{split: files} at a path as the user wrote it: a folder with splits, or the files of train.

    Raises:
        UserError: there are none, or none to train on.
    """
    root = Path(written)
    found = {
        split: [path for name in FOLDERS[split] for path in _files(root / name)] for split in SPLITS
    }
    if not any(found.values()):
        found["train"] = _files(root) or sorted(map(Path, glob.glob(written, recursive=True)))
        found["train"] = [path for path in found["train"] if _ours(path)]
    if not found["train"]:
        raise UserError(f"import: {written}: {_nothing(root, found['valid'])}")
    if locked := [p for files in found.values() for p in files if not os.access(p, os.R_OK)]:
        raise UserError(f"import: {locked[0]}: not readable for you; ask who owns it for the right")
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(filter(_ours, folder.iterdir())) if folder.is_dir() else []


def _ours(path: Path) -> bool:
    hidden = path.name.startswith((".", "_"))
    return path.suffix.lower() in ENDS and not hidden and path.is_file()


def _nothing(root: Path, held_out: list[Path]) -> str:
    if held_out:
        return f"rows to validate on ({held_out[0].parent.name}/), but none in train/"
    if root.is_dir():
        return "no Parquet files lie in this folder, nor in train/ below it"
    if root.exists():
        return "not a Parquet file (*.parquet, *.pq); name a folder or files"
    return "there is no such folder or file"


def take(told: Mapping[str, Any], tokenizer: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Check every row of the files at a path, and copy them into `folder`.

    `told` has `import`, the path as the user wrote it, `pack_size` and `pad_multiple`; `tokenizer`
    is its manifest's content. Returns what the manifest tells: counts of the splits as
    `packing.write_packed` has them, and which file each was.

    Raises:
        UserError: as `find`; a file or a row is not what the trainer reads; `folder` is removed.
    """
    with ExitStack() as failed:
        failed.callback(shutil.rmtree, folder, ignore_errors=True)
        given = find(told["import"])
        rules = packed_rows.Rules(told["pack_size"], told["pad_multiple"], tokenizer["vocabulary"])
        counts: dict[str, Any] = {}
        described, files = [], []
        total = sum(path.stat().st_size for paths in given.values() for path in paths)
        with Bytes("checking and copying", total) as progress:
            for split, paths in given.items():
                parts = list(_taken(paths, folder / split, rules, progress))
                stored, bins = _joined(parts)
                trained = sum(part.trained for part in parts)
                counts[split] = counts_of(stored, bins, trained, rules.pack_size)
                described += metadata(stored, bins, rules.pack_size)
                files += [
                    {"path": f"{split}/{_name(i)}", "from": path.name, "rows": part.rows}
                    for i, (path, part) in enumerate(zip(paths, parts, strict=True))
                ]
        if not counts["train"]["rows"]:
            raise UserError(f"import: {told['import']}: its files hold no rows to train on")
        write_json(folder / METADATA, described)
        failed.pop_all()
    return {"imported": files, "sources": {}, **counts}


def _name(number: int) -> str:
    return f"packed_{number:05d}.parquet"


def _taken(
    paths: list[Path], folder: Path, rules: packed_rows.Rules, progress: Bytes
) -> Iterator[packed_rows.Found]:
    for number, path in enumerate(paths):
        folder.mkdir(parents=True, exist_ok=True)
        before = path.stat()
        found = packed_rows.check(path, rules)
        for size in imports.copied(path, folder / _name(number)):
            progress.add(size)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise UserError(f"import: {path}: changed while it was copied; try again")
        yield found


def _joined(parts: list[packed_rows.Found]) -> tuple[np.ndarray, Bins]:
    """(tokens of every sequence, the rows that they make up)."""
    none = [np.empty(0, np.int64)]
    stored = np.concatenate(none + [lengths for part in parts for lengths in part.lengths])
    counts = np.concatenate(none + [counts for part in parts for counts in part.counts])
    return stored, Bins(np.append(0, np.cumsum(counts)), np.arange(len(stored)))


def check_early(config: Config, mixture: str, product: Path) -> None:
    """Raise UserError where the path of a mixture to import holds no Parquet files."""
    identity = specs.of(config, "pack", {"mixture": mixture}).identity
    imports.refuse_missing(identity, product, config.place("mixtures", mixture, "import"), find)
