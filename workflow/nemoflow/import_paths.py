"""Which existing bin/idx shards a path names: a prefix, a folder, a glob, or a blend.json."""

import glob
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from nemoflow import imports, specs
from nemoflow.blend import SPLITS
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.files import read_json

ENDS = ("bin", "idx")
WORDS = {split: split for split in SPLITS} | {"validation": "valid"}


@dataclass(frozen=True)
class Shard:
    """A pair of files by their prefix; `weight` is the one of a blend.json."""

    prefix: Path
    split: str
    weight: float | None = None

    def files(self) -> list[Path]:
        """Its .bin and its .idx."""
        return [Path(f"{self.prefix}.{end}") for end in ENDS]


def find(written: str) -> list[Shard]:
    """The shards at a path as the user wrote it, sorted; of a blend.json in its order.

    What a name says is the split: a part of it, or of its folder's below the path, that is train,
    valid, validation or test; train where it says nothing.

    Raises:
        UserError: there are none, or a file has no partner; says which.
    """
    if written.endswith(".json"):
        return of_blend(Path(written))
    root, files = listed(written)
    if not files:
        raise UserError(f"import: {written}: {nothing(Path(written))}")
    prefixes = sorted({file.with_suffix("") for file in files})
    shards = [Shard(prefix, split_of(prefix, root)) for prefix in prefixes]
    refuse_missing(shards)
    if not any(shard.split == "train" for shard in shards):
        raise UserError(
            f"import: {written}: by their names all {len(shards)} shards are held out, the first is"
            f" {shards[0].prefix} ({shards[0].split}); name one that is for training"
        )
    return shards


def listed(written: str) -> tuple[Path, list[Path]]:
    """The .bin and .idx files that a path names, and the folder that it names them in."""
    path = Path(written)
    if path.is_dir():
        return path, ours(path.rglob("*"))
    if glob.has_magic(written):
        fixed = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        found = [Path(name) for name in glob.glob(written, recursive=True)]
        inside = [file for folder in found if folder.is_dir() for file in folder.rglob("*")]
        return fixed, ours({*found, *inside})
    prefix = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    return path.parent, ours(Path(f"{prefix}.{end}") for end in ENDS)


def ours(paths: Iterable[Path]) -> list[Path]:
    """The files among paths that hold shards; hidden ones are somebody's temporary files."""
    return [
        path
        for path in paths
        if path.suffix in (".bin", ".idx") and not path.name.startswith(".") and path.is_file()
    ]


def nothing(path: Path) -> str:
    """Why there are no shards at a path."""
    if path.is_dir():
        return "no .bin and .idx files lie in this folder, or below it"
    if path.exists():
        return "a file; name a prefix (without .bin or .idx), a folder, a glob or a blend.json"
    if glob.has_magic(str(path)):
        return "no .bin or .idx file matches"
    return f"there is no such folder, and no {path}.bin"


def split_of(prefix: Path, root: Path) -> str:
    """The split that the name of a shard says."""
    parts = re.split(r"[/._-]", prefix.relative_to(root).as_posix().lower())
    return next((WORDS[part] for part in reversed(parts) if part in WORDS), "train")


def refuse_missing(shards: Iterable[Shard]) -> None:
    """UserError where a file of a pair is not there, or cannot be read."""
    for shard in shards:
        there = [file for file in shard.files() if file.is_file()]
        missing = [file for file in shard.files() if file not in there]
        if len(missing) == 2:
            raise UserError(f"{shard.prefix}: there is neither a .bin nor an .idx of this prefix")
        if missing:
            raise UserError(f"{missing[0]} is missing: {there[0].name} is there without it")
        if locked := [file for file in there if not os.access(file, os.R_OK)]:
            raise UserError(f"{locked[0]}: not readable for you; ask who owns it for the right to")


def of_blend(path: Path) -> list[Shard]:
    """The shards of a blend.json, with their weights, in its order.

    As Megatron-Bridge takes it: a list, or a line of text, of each split (data/loaders.py); a
    relative prefix counts from the repository's root, or from the file's folder.

    Raises:
        UserError: says which entry of which list is wrong.
    """
    if not path.is_file():
        raise UserError(f"import: {path}: there is no such file")
    try:
        told = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(told, dict) or "train" not in told or set(told) - set(SPLITS):
        raise UserError(f"{path}: not a blend.json: that has train, valid, test, and nothing else")
    shards = [shard for split in SPLITS for shard in of_list(path, split, told.get(split) or [])]
    if not any(shard.split == "train" and shard.weight for shard in shards):
        raise UserError(f"{path}: train lists nothing with a weight above 0: nothing to train on")
    seen: dict[str, str] = {}
    for shard in shards:
        if before := seen.get(os.path.abspath(shard.prefix)):
            where = " and ".join(dict.fromkeys((before, shard.split)))
            raise UserError(
                f"{path}: {shard.prefix} stands twice, in {where}; a shard has one split and one"
                " weight"
            )
        seen[os.path.abspath(shard.prefix)] = shard.split
    refuse_missing(shards)
    return shards


def of_list(path: Path, split: str, told: Any) -> list[Shard]:
    """The shards of one list of a blend.json: weight, prefix, weight, prefix."""
    entries = told.split() if isinstance(told, str) else told
    if not isinstance(entries, list) or not all(
        isinstance(entry, str | int | float) for entry in entries
    ):
        raise UserError(f"{path}: {split} is not a list of weights and prefixes")
    if len(entries) % 2:
        raise UserError(
            f"{path}: {split} has {len(entries)} entries, an odd number: weight and prefix must"
            " alternate (Megatron would take all of them for prefixes)"
        )
    pairs = zip(entries[::2], entries[1::2], strict=True)
    return [
        Shard(placed(path, split, str(prefix)), split, weight_of(path, split, weight))
        for weight, prefix in pairs
    ]


def weight_of(path: Path, split: str, told: Any) -> float:
    """A weight of a blend.json as a number."""
    try:
        weight = float(told)
    except ValueError:
        raise UserError(f"{path}: {split}: {told!r} stands where a weight belongs") from None
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"{path}: {split}: weight {told} is not a finite number >= 0")
    return weight


def placed(path: Path, split: str, prefix: str) -> Path:
    """Where a prefix of a blend.json lies."""
    tried = dict.fromkeys((Path(prefix), path.parent / prefix))
    for place in tried:
        if any(Path(f"{place}.{end}").exists() for end in ENDS):
            return place
    places = " or ".join(f"{place}.bin" for place in tried)
    raise UserError(f"{path}: {split} lists {prefix}, which does not exist: there is no {places}")


def check_early(config: Config, tokenizer: str, corpus: str, product: Path) -> None:
    """Raise UserError where the path of a corpus to import holds no shards."""
    identity = specs.of(config, "corpus", {"tokenizer": tokenizer, "corpus": corpus}).identity
    kind = "corpora" if corpus in config.raw["corpora"] else "blends"
    imports.refuse_missing(identity, product, config.place(kind, corpus, "import"), find)
