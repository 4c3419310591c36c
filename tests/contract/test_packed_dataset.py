"""Our packed conversations, read by Megatron-Bridge's dataset and by the local engine."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from megatron.bridge.data.packing.parquet import GPTSFTPackedParquetDataset

from nemoflow.engines.local.packed import PackedRows

EOS = 11
PACK = 256


def conversation(generator: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and aligned loss mask: turns that end in EOS, after which nothing counts."""
    ids = generator.integers(20, 500, size=length)
    ids[generator.random(length) < 0.1] = EOS
    mask = generator.integers(0, 2, size=length)
    mask[ids == EOS] = 0
    mask[-1] = 0
    return ids, mask


def make_packed(folder: Path) -> None:
    """Two files of rows of up to four conversations each, one of them of a single token."""
    generator = np.random.default_rng(3)
    schema = pa.schema(
        [
            ("input_ids", pa.list_(pa.int32())),
            ("loss_mask", pa.list_(pa.uint8())),
            ("seq_start_id", pa.list_(pa.int32())),
        ]
    )
    for shard in range(2):
        rows = []
        for _ in range(20):
            lengths = [*generator.integers(2, 60, size=generator.integers(1, 4)), 1]
            ids, masks = zip(*(conversation(generator, n) for n in lengths), strict=True)
            starts = np.cumsum([0, *lengths[:-1]])
            row = (np.concatenate(ids), np.concatenate(masks), starts)
            rows.append(dict(zip(schema.names, row, strict=True)))
        table = pa.Table.from_pylist(rows, schema)
        pq.write_table(table, folder / f"shard_{shard:06d}.parquet", compression="zstd")


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A folder of packed Parquet files."""
    folder = tmp_path_factory.mktemp("packed")
    make_packed(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(packed) -> GPTSFTPackedParquetDataset:
    """Megatron-Bridge's dataset of the folder; of the tokenizer it asks for ids only."""
    tokenizer = SimpleNamespace(eos_id=EOS, bos_id=1, pad_id=0, eod=EOS, space_sensitive=False)
    return GPTSFTPackedParquetDataset(
        str(packed),
        tokenizer,
        max_seq_length=PACK,
        pad_to_max_length=False,
        prompt_template="{input} {output}",
        label_key="output",
        truncation_field="input",
    )


def test_rows(dataset, packed):
    """Every row is what was written, and obeys Megatron-Bridge's own rules."""
    rows = pq.read_table(packed).to_pylist()
    assert len(dataset) == len(rows)
    for index, row in enumerate(rows):
        dataset.validate_row(index, *(row[name] for name in ("input_ids", "loss_mask", "seq_start_id")))
        read = dataset[index]
        assert list(read["input_ids"]) == row["input_ids"]
        assert list(read["loss_mask"]) == row["loss_mask"]
        assert list(read["seq_boundaries"]) == [*row["seq_start_id"], len(row["input_ids"])]


def test_batches(dataset, packed):
    """Both engines train on the same tokens, labels and masks: the sum of (length - 1) a row."""
    local = PackedRows(packed)
    for index in range(len(dataset)):
        batch = dataset.collate_fn([dataset[index]])
        (count,) = batch["token_count"]
        tokens, labels, mask = (batch[name][0] for name in ("tokens", "labels", "loss_mask"))

        ids, counts = local.batch([index])
        starts = local.rows[index][2]
        lengths = np.diff([*starts, len(local.rows[index][0])])
        lengths = lengths[lengths > 1]
        assert count == sum(lengths - 1)
        assert mask[count:].sum() == 0, "padding counts"
        position = 0
        for row, length in enumerate(lengths):
            span = slice(position, position + length - 1)
            np.testing.assert_array_equal(tokens[span], ids[row, : length - 1])
            np.testing.assert_array_equal(labels[span], ids[row, 1:length])
            np.testing.assert_array_equal(mask[span], counts[row, : length - 1])
            position += length - 1


def test_boundaries(dataset):
    """The attention kernel is told where each conversation ends, one label short."""
    for index in range(len(dataset)):
        batch = dataset.collate_fn([dataset[index]])
        lengths = np.diff(dataset[index]["seq_boundaries"]) - 1
        boundaries = batch["cu_seqlens_q"][0][: len(lengths) + 1]
        np.testing.assert_array_equal(boundaries, np.cumsum([0, *lengths]))
