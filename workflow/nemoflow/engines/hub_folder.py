"""A model folder of Hugging Face, as every engine's export writes it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.hub import hub_config
from nemoflow.shards import INDEX, SINGLE

KEPT_FP32 = "e_score_correction_bias"  # as transformers keeps it, whatever the dtype
SHARD = 5 * 10**9  # bytes, the hub's usual size of a file
# transformers (to 5.23) holds Mamba's time steps at `time_step_min` or above, in prefill alone;
# Megatron-LM, which trains, and vLLM do not, and Megatron-Bridge does not read the key. This bound
# is below all that matter; 0 has no logarithm, which transformers takes when it initialises.
NO_BOUND = 1e-9


def config_of(model: Mapping[str, Any], dtype: str, tokenizer: str) -> dict[str, Any]:
    """config.json of a model section with a tokenizer's special ids.

    Raises:
        UserError: the tokenizer has ids that the model has not.
    """
    made = AutoTokenizer.from_pretrained(tokenizer)
    if len(made) > model["vocab_size"]:
        raise UserError(
            f"{tokenizer}: {len(made)} tokens, but model.vocab_size is"
            f" {model['vocab_size']}; export with the tokenizer that the data were made with"
        )
    config = hub_config({"ffn": None, "mtp": None, **model}, dtype) | {"time_step_min": NO_BOUND}
    return config | {key: getattr(made, key) for key in config if key.endswith("_token_id")}


def cast(
    weights: Iterable[tuple[str, torch.Tensor]], dtype: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights in the type that an export has them in."""
    for name, tensor in weights:
        wanted = tensor.dtype if name.endswith(KEPT_FP32) else getattr(torch, dtype)
        yield name, tensor.to(wanted).contiguous()


def write_shards(
    weights: Iterable[tuple[str, torch.Tensor]], folder: Path, limit: int = SHARD
) -> None:
    """Write weights into files of at most `limit` bytes, holding one file's in memory at a time.

    A single file is model.safetensors; of several, model.safetensors.index.json says which has
    what.
    """
    files: list[list[str]] = []
    total, held, size = 0, {}, 0

    def flush() -> None:
        save_file(held, folder / f"{len(files)}.part", metadata={"format": "pt"})
        files.append(list(held))

    for name, tensor in weights:
        if held and size + tensor.nbytes > limit:
            flush()
            held, size = {}, 0
        held[name] = tensor
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(files) == 1:
        (folder / "0.part").rename(folder / SINGLE)
        return
    places = {}
    for number, names in enumerate(files):
        file = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        (folder / f"{number}.part").rename(folder / file)
        places |= dict.fromkeys(names, file)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
