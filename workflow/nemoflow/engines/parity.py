"""The verdict on a conversion: what a model folder of Hugging Face became, and became again.

The folder goes into an engine and out again: names, shapes and values must be equal, bit for bit.
And the engine must say what transformers says, by the measure of Megatron-Bridge's own check
(`examples/conversion/compare_hf_and_megatron/compare.py`): cosine and next token.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from nemoflow import shards
from nemoflow.errors import UserError

COSINE = 0.99  # Megatron-Bridge's `SIMILARITY_THRESHOLD`
# The positions that must have the same next token; of 16 bits, near ties fall either way.
SAME_TOKENS = {"float32": 1.0, "float16": 0.95, "bfloat16": 0.95}
# How far logits may lie apart when only the order of sums differs.
SAME_LOGITS = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}


def round_trip(folder: Path, again: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Any]:
    """Compare what came out again, under the hub's names, with the folder's safetensors.

    Two tensors are in memory at a time. Bits are compared, so a NaN equals itself and -0 is not 0.
    `dtype` in the result is that of most parameters.

    Raises:
        UserError: a name, shape, type or value differs; it names the first.
    """
    held = shards.read_all(folder, [path.name for path in folder.iterdir()])
    where, missing, wrong = places(folder), set(held), []
    files = {name: safe_open(folder / name, "pt") for name in set(where.values())}
    for name, tensor in again:
        if name not in missing:
            wrong.append(f"{name}: {'twice' if name in held else 'not in the folder'}")
            continue
        missing.remove(name)
        if found := difference(files[where[name]].get_tensor(name), tensor.cpu()):
            wrong.append(f"{name}: {found}")
    wrong += [f"{name}: lost on the way" for name in sorted(missing)]
    if wrong:
        raise UserError(
            f"{folder}: {len(wrong)} tensors do not come back as they went in:"
            f" {'; '.join(wrong[:3])}; the model section is not this model's, or the conversion has"
            " a fault"
        )
    sizes: dict[str, int] = {}
    for tensor in held.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    equal = dict.fromkeys(("names", "shapes", "values"), "equal")
    total = {"tensors": len(held), "parameters": sum(sizes.values())}
    return total | {"dtype": max(sizes, key=sizes.__getitem__)} | equal


def in_types_of(
    folder: Path, weights: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights, each in the type that it has in a folder; unknown ones as they are."""
    held = shards.read_all(folder, [path.name for path in folder.iterdir()])
    for name, tensor in weights:
        yield name, tensor.to(getattr(torch, held[name].dtype)) if name in held else tensor


def places(folder: Path) -> dict[str, str]:
    """The file of each tensor of a model folder."""
    if (folder / shards.INDEX).exists():
        return shards.read_index(folder / shards.INDEX)
    return dict.fromkeys(shards.read_file(folder / shards.SINGLE), shards.SINGLE)


def difference(before: torch.Tensor, after: torch.Tensor) -> str:
    """In words, how two tensors differ; empty when they do not."""
    if before.shape != after.shape:
        return f"{list(before.shape)} became {list(after.shape)}"
    if before.dtype != after.dtype:
        return f"{before.dtype} became {after.dtype}"
    pair = [t.contiguous().reshape(-1).view(torch.uint8) for t in (before, after)]
    if torch.equal(*pair):
        return ""
    wide = [t.view(-1, before.itemsize) for t in pair]
    return f"{int((wide[0] != wide[1]).any(1).sum())} of {before.numel()} values differ"


def probe(vocab_size: int, length: int = 64) -> torch.Tensor:
    """Token ids to compare models on: int64 [2, length], the same for the same vocabulary."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocab_size, (2, length), generator=generator)


def logits(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, Any]:
    """How alike an engine's logits are to those of transformers, [batch, length, vocabulary] each.

    `cosine` is the smallest over the positions, `same_next_token` the share of positions.
    """
    ours, theirs = ours.double().flatten(0, 1), theirs.double().flatten(0, 1)
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, -1).min()
    same = (ours.argmax(-1) == theirs.argmax(-1)).double().mean()
    found = {"cosine": round(float(cosine), 4), "same_next_token": round(float(same), 4)}
    return {"against": "transformers", "tokens": len(ours), **found}


def adapters(adapted: torch.Tensor, merged: torch.Tensor, dtype: str) -> dict[str, float]:
    """How far logits of base and adapters lie from those of the merged model; as in `logits`.

    `dtype` is the type that both computed in.
    """
    found = float((adapted.double() - merged.double()).abs().max())
    return {"max_difference": float(f"{found:.0e}"), "allowed": SAME_LOGITS[dtype]}


def verdict(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, with the verdict: passed, or failed where logits are not alike.

    Logits that nobody compared fail nothing. Unequal round trips never get here.
    """
    seen, adapted = found.get("logits", {}), found.get("adapters")
    alike = "cosine" not in seen or (
        seen["cosine"] >= COSINE and seen["same_next_token"] >= SAME_TOKENS[found["dtype"]]
    )
    if adapted:
        alike = alike and adapted["max_difference"] <= adapted["allowed"]
    return {**found, "verdict": "passed" if alike else "failed"}
