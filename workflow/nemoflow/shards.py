"""safetensors files without torch: whether they are whole, and which tensors they hold.

A file is the length of its header (8 bytes, little-endian), the header (JSON: of each tensor its
type, shape and place in the data) and the data, without gaps: https://github.com/huggingface/safetensors.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
TYPES = {  # bits, and torch's name
    "F64": (64, "float64"),
    "F32": (32, "float32"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E8M0": (8, "float8_e8m0fnu"),
    "F4": (4, "float4_e2m1fn_x2"),
    "I64": (64, "int64"),
    "I32": (32, "int32"),
    "I16": (16, "int16"),
    "I8": (8, "int8"),
    "U64": (64, "uint64"),
    "U32": (32, "uint32"),
    "U16": (16, "uint16"),
    "U8": (8, "uint8"),
    "BOOL": (8, "bool"),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor's type, as torch calls it, and its number of elements."""

    dtype: str
    size: int


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, its data unread.

    Raises:
        UserError: it is cut short, or no safetensors file.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length and length <= LONGEST_HEADER:
            raise cut_short(path, size, 8 + length)
        if not 2 <= length <= LONGEST_HEADER:
            raise UserError(f"{path}: no safetensors file: a header of {length} bytes")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        placed = {name: placed_tensor(entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: no safetensors file: {error}") from None
    end = 0
    for name, (_, start, stop) in sorted(placed.items(), key=lambda item: item[1][1:]):
        if start != end:
            raise UserError(f"{path}: damaged: {name} begins at byte {start}, not {end}")
        end = stop
    if size != 8 + length + end:
        raise cut_short(path, size, 8 + length + end)
    return {name: tensor for name, (tensor, _, _) in placed.items()}


def placed_tensor(entry: dict[str, Any]) -> tuple[Tensor, int, int]:
    """A header's tensor, and where in the data it begins and ends.

    Raises ValueError (or KeyError, TypeError) for what is no such entry.
    """
    bits, dtype = TYPES.get(entry["dtype"], (None, entry["dtype"]))
    (start, stop), size = map(int, entry["data_offsets"]), prod(map(int, entry["shape"]))
    if size < 0 or stop < start or (bits and (stop - start) * 8 != size * bits):
        raise ValueError(f"{entry['shape']} of {entry['dtype']} are not {stop - start} bytes")
    return Tensor(dtype, size), start, stop


def cut_short(path: Path, size: int, expected: int) -> UserError:
    """The error for a file that is not as long as it says."""
    what = "cut short" if size < expected else "longer than it says"
    return UserError(f"{path}: {what}: {size:,} of {expected:,} bytes; copy or download it again")


def read_all(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a model in one file, or in the shards that its index names.

    `names` are the files of the folder.

    Raises:
        UserError: a shard is missing, damaged or one too many, or has not the tensors it should.
    """
    files = sorted(name for name in names if name.endswith(".safetensors"))
    if INDEX not in names:
        if files != [SINGLE]:
            raise UserError(
                f"{folder}: {', '.join(files)}, but no {INDEX}: a model is {SINGLE}, or shards"
                " with an index"
            )
        return read_file(folder / SINGLE)
    wanted = read_index(folder / INDEX)
    if missing := sorted(set(wanted.values()) - set(files)):
        raise UserError(f"{folder}: {len(missing)} shards of {INDEX} are missing: {some(missing)}")
    if extra := sorted(set(files) - set(wanted.values())):
        raise UserError(
            f"{folder}: {some(extra)}: not in {INDEX}; remove what is not of this model"
        )
    found: dict[str, Tensor] = {}
    for file in files:
        tensors = read_file(folder / file)
        listed = {name for name, place in wanted.items() if place == file}
        if wrong := sorted(listed ^ set(tensors)):
            word = "has no" if wrong[0] in listed else "has, against the index,"
            raise UserError(f"{folder / file}: {word} {some(wrong)}; shards of two downloads?")
        found |= tensors
    return found


def read_index(path: Path) -> dict[str, str]:
    """The shard of each tensor."""
    try:
        listed = json.loads(path.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not an index of shards: no weight_map in it") from None
    if not isinstance(listed, dict) or not listed:
        raise UserError(f"{path}: not an index of shards: its weight_map is empty")
    return listed


def some(names: list[str]) -> str:
    """The first three of some names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
