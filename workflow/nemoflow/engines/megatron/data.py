"""What a job trains on, in the words of Megatron-Bridge's dataset configs; without torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemoflow import manifest, padding
from nemoflow.blend import SPLITS
from nemoflow.errors import UserError
from nemoflow.files import read_json


def fields(job: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """The data set and the tokenizer it was made with."""
    yield from (packed if job["task"] == "sft" else blended)(job)
    yield from tokenizing(job)


def blended(job: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """bin/idx shards by weight; without a blend Megatron makes up its data (mock).

    Its indices would be written beside the shards, into another product's bytes: they go into the
    job's own folder, where a resumed job finds them.
    """
    blend = job["inputs"].get("blend")
    yield "dataset.blend", (None,)
    yield "dataset.blend_per_split", (per_split(blend) if blend else None, "blend")
    yield "dataset.split", (None if blend else "1,1,1",)
    yield "dataset.data_path", (None,)
    yield "dataset.path_to_cache", (str(Path(job["progress"]) / "index"),)
    yield "dataset.random_seed", (job["seed"], "seed")
    yield "dataset.dataloader_type", ("single",)
    for field in ("reset_position_ids", "reset_attention_mask", "eod_mask_loss"):
        yield f"dataset.{field}", (False,)


def per_split(blend: str) -> list[tuple[list[str], list[float]]]:
    """A blend file as Megatron has it in memory: paths and weights of train, valid, test.

    The same as Megatron-Bridge reads from `per_split_data_args_path`.
    """
    told = read_json(blend)
    return [(told[split][1::2], [float(w) for w in told[split][::2]]) for split in SPLITS]


def packed(job: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """Rows of packed conversations, in folders of Parquet files."""
    folder = Path(job["inputs"]["data"])
    valid, metadata = folder / "valid", folder / "packing.json"
    specs = {
        "packed_sequence_size": job["config"]["batch"]["sequence"],
        "packed_train_data_path": str(folder / "train"),
        "packed_val_data_path": str(valid) if valid.is_dir() else None,
        "packed_metadata_path": str(metadata) if metadata.is_file() else None,
        "pad_seq_to_mult": pad_multiple(job),
    }
    for field, value in specs.items():
        key = "batch.sequence" if field == "packed_sequence_size" else "mixture"
        yield f"dataset.offline_packing_specs.{field}", (value, key)
    # CUDA graphs alone need them; then dataset_kwargs.pad_to_max_length too.
    yield "dataset.offline_packing_specs.pad_cu_seqlens", (False,)
    yield "dataset.dataset_kwargs", ({},)
    yield "dataset.enable_offline_packing", (True,)
    yield "dataset.dataset_root", (str(folder), "mixture")
    yield "dataset.seed", (job["seed"], "seed")
    yield "dataset.do_validation", (valid.is_dir(),)
    yield "dataset.do_test", (False,)


def pad_multiple(job: Mapping[str, Any]) -> int:
    """To which multiple of tokens each conversation was padded.

    Before the rows are there: what the parallel sizes ask for.
    """
    made = manifest_of(job["inputs"]["data"])
    if made.exists():
        return manifest.read(made)["identity"]["pad_multiple"]
    sizes = job["config"]["parallel"]
    return padding.multiple(sizes["context"], sizes["tensor"], sizes["sequence"])


def tokenizing(job: Mapping[str, Any]) -> Iterator[tuple[str, tuple]]:
    """The tokenizer of the data themselves, never another pin; a mock run needs but its size."""
    folder = job["inputs"].get("tokenizer") or tokenizer_of(job)
    if folder is None:
        yield "tokenizer.tokenizer_type", ("NullTokenizer",)
        yield "tokenizer.vocab_size", (job["config"]["model"]["vocab_size"] - 1,)
        return
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder}: the tokenizer of the data is not there; build it, or `dvc pull {folder}`"
        )
    yield "tokenizer.tokenizer_type", ("HuggingFaceTokenizer",)
    yield "tokenizer.tokenizer_model", (folder, "mixture" if job["task"] == "sft" else "tokenizer")
    yield "tokenizer.use_tokenizer_vocab_size", (False,)


def tokenizer_of(job: Mapping[str, Any]) -> str | None:
    """The folder of the tokenizer that a job's data were made with, None for a mock run.

    A shard's prefix names it (`results/data/tokens/{tokenizer}/...`); packed rows come from
    rendered conversations, whose manifests have it first among their inputs, as imported rows do.
    """
    if job["task"] == "sft":
        made = manifest.read(manifest_of(job["inputs"]["data"]))
        before = next(iter(made["inputs"]))
        if "import" not in made["identity"]:
            before = next(iter(manifest.read(before)["inputs"]))
        return str(manifest.payload(before))
    if not (blend := job["inputs"].get("blend")):
        return None
    parts = Path(per_split(blend)[0][0][0]).parts
    place = parts.index("tokens")
    return str(Path(*parts[:place], "tokenizers", parts[place + 1]))


def manifest_of(payload: str) -> Path:
    """The manifest beside a product's bytes."""
    return Path(f"{payload}.json")
