"""Our packed conversations, read by Megatron-Bridge's dataset and by the local engine."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from megatron.bridge.data.packing.parquet import GPTSFTPackedParquetDataset

from nemoflow import padding, tokenizer
from nemoflow.engines.local.packed import PackedRows
from nemoflow.files import read_json
from nemoflow.packing import write_packed
from nemoflow.spool import SpoolWriter, conversation

EOS = 11
SIZES = {
    "alone": {"context": 1, "tensor": 1, "sequence": False},
    "context 2": {"context": 2, "tensor": 1, "sequence": False},
    "context 4": {"context": 4, "tensor": 1, "sequence": False},
    "context 2, sequence": {"context": 2, "tensor": 8, "sequence": True},
    "sequence": {"context": 1, "tensor": 4, "sequence": True},
}


@dataclass
class Packed:
    """A folder of packed Parquet files, and how it was packed."""

    folder: Path
    pack_size: int
    pad_multiple: int
    eos: int


def make_spool(folder: Path, seed: int) -> None:
    """Conversations of 2 to 150 tokens, of turns that end in EOS."""
    generator = np.random.default_rng(seed)
    with SpoolWriter(folder, EOS) as spool:
        for length in generator.integers(2, 150, size=200):
            ids = generator.integers(20, 500, size=length)
            ids[generator.random(length) < 0.1] = EOS
            mask = generator.integers(0, 2, size=length)
            spool.add(conversation([(ids, mask)]))


@pytest.fixture(scope="module", params=[*SIZES, "results"])
def packed(request, tmp_path_factory, results) -> Packed:
    """Small mixtures, padded as the parallel sizes ask, and the tiny run's."""
    if request.param == "results":
        manifest = results / "data/packed/tiny.json"
        if not manifest.exists():
            pytest.skip(f"no finished tiny run: {manifest} is not there")
        identity = read_json(manifest)["identity"]
        eos = tokenizer.eos_id(results / "data/tokenizers/tiny")
        sizes = (identity["pack_size"], identity["pad_multiple"])
        return Packed(results / "data/packed/tiny/train", *sizes, eos)
    folder = tmp_path_factory.mktemp("packed")
    sources = {name: folder / name for name in ("chat", "code")}
    for seed, spool in enumerate(sources.values()):
        make_spool(spool, seed)
    pad_multiple = padding.multiple(**SIZES[request.param])
    told = {"pack_size": 257, "pad_multiple": pad_multiple, "seed": 1, "valid_fraction": 0.1}
    told["weights"] = {"chat": 1.0, "code": 0.5}
    counts = write_packed(sources, told, folder / "packed")
    assert (counts["train"]["padding"] > 0) == (pad_multiple > 1)
    return Packed(folder / "packed/train", 257, pad_multiple, EOS)


def opened(packed: Packed, size: int, **asked) -> GPTSFTPackedParquetDataset:
    """Megatron-Bridge's dataset of the folder; of the tokenizer it asks for ids only."""
    eos = packed.eos
    ids = SimpleNamespace(eos_id=eos, bos_id=eos, pad_id=eos, eod=eos, space_sensitive=False)
    return GPTSFTPackedParquetDataset(
        str(packed.folder),
        ids,
        pad_seq_to_mult=packed.pad_multiple,
        max_seq_length=size,
        prompt_template="{input} {output}",
        label_key="output",
        truncation_field="input",
        **asked,
    )


@pytest.fixture(scope="module")
def dataset(packed) -> GPTSFTPackedParquetDataset:
    """As a job without CUDA graphs opens it."""
    return opened(packed, packed.pack_size, pad_to_max_length=False)


def test_rows(dataset, packed):
    """Every row is what was written, and obeys Megatron-Bridge's own rules."""
    rows = pq.read_table(packed.folder).to_pylist()
    assert len(dataset) == len(rows)
    for index, row in enumerate(rows):
        dataset.validate_row(index, row["input_ids"], row["loss_mask"], row["seq_start_id"])
        read = dataset[index]
        assert list(read["input_ids"]) == row["input_ids"]
        assert list(read["loss_mask"]) == row["loss_mask"]
        assert list(read["seq_boundaries"]) == [*row["seq_start_id"], len(row["input_ids"])]


def test_batches(dataset, packed):
    """Both engines train on the same tokens, labels and masks: the sum of (length - 1) a row.

    But for predictions from an EOS, as of the newline after a turn: Megatron-Bridge 0.6.2 leaves
    them out of the loss, whatever the mask says.
    """
    local = PackedRows(packed.folder)
    for index in range(len(dataset)):
        batch = dataset.collate_fn([dataset[index]])
        lengths = np.diff(dataset[index]["seq_boundaries"]) - 1
        lengths = lengths[lengths > 0]
        assert batch["token_count"] == [lengths.sum()]
        ids, counts = local.batch([index])
        inputs = ids[:, :-1]
        counts &= inputs != packed.eos
        ours = {"tokens": inputs, "labels": ids[:, 1:], "loss_mask": counts}
        for name, rows in ours.items():
            pieces = [row[:length] for row, length in zip(rows, lengths, strict=True)]
            theirs = batch[name][0]
            np.testing.assert_array_equal(theirs[: lengths.sum()], np.concatenate(pieces), name)
        assert not batch["loss_mask"][0, lengths.sum() :].any(), "padding counts"


def test_boundaries(dataset, packed):
    """The attention kernel is told where each conversation ends, at multiples where asked."""
    name = "cu_seqlens_q_padded" if packed.pad_multiple > 1 else "cu_seqlens_q"
    for index in range(len(dataset)):
        lengths = np.diff(dataset[index]["seq_boundaries"]) - 1
        boundaries = dataset.collate_fn([dataset[index]])[name][0][: len(lengths) + 1]
        np.testing.assert_array_equal(boundaries, np.cumsum([0, *lengths]))
        assert not (boundaries % packed.pad_multiple).any()


def test_metadata(packed):
    """Batches of one shape, as CUDA graphs need them, by our packing.json."""
    size = -(-packed.pack_size // packed.pad_multiple) * packed.pad_multiple
    path = packed.folder.parent / "packing.json"
    dataset = opened(
        packed, size, pad_to_max_length=True, pad_cu_seqlens=True, pack_metadata_file_path=str(path)
    )
    rows = [dataset[index] for index in range(len(dataset))]
    lengths = [np.diff(row["seq_boundaries"]) - 1 for row in rows]
    told = read_json(path)
    assert told[0]["max_samples_per_bin"] == max(map(len, lengths))
    assert told[0]["dataset_max_seqlen"] == max(map(max, lengths))
    assert told[0]["min_packed_seqlen"] == min(map(sum, lengths))
    most = max(entry["max_samples_per_bin"] for entry in told)
    longest = set()
    for row in rows:
        batch = dataset.collate_fn([row])
        assert batch["cu_seqlens_q"].shape == (1, most + 2)
        longest.add(int(batch["max_seqlen_q"]))
    assert len(longest) == 1
