"""Bins, mixtures, and the columns that the trainer reads."""

import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow import packing
from nemoflow.errors import UserError
from nemoflow.packing import pack, write_packed
from nemoflow.spool import SpoolWriter

EOS = 7


def first_fit_decreasing(lengths, size):
    bins = []
    for length in sorted(lengths, reverse=True):
        for index, free in enumerate(bins):
            if free >= length:
                bins[index] -= length
                break
        else:
            bins.append(size - length)
    return len(bins)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=120), st.integers(40, 60), st.integers(0, 3))
def test_every_sequence_once_and_no_bin_too_full(lengths, size, seed):
    bins = pack(np.array(lengths, int), size, seed)
    assert sorted(bins.members.tolist()) == list(range(len(lengths)))
    members = [bins[index] for index in range(len(bins))]
    assert all(0 < sum(lengths[m] for m in member) <= size for member in members)
    assert len(bins) <= first_fit_decreasing(lengths, size) + 1
    again = pack(np.array(lengths, int), size, seed)
    assert np.array_equal(again.members, bins.members)


def test_as_full_as_first_fit_decreasing():
    lengths = np.clip(np.random.default_rng(0).lognormal(6.4, 1.1, 3000), 16, 4096).astype(int)
    assert len(pack(lengths, 4096, 0)) <= first_fit_decreasing(lengths.tolist(), 4096)


def test_a_million_sequences_take_a_moment():
    lengths = np.clip(np.random.default_rng(0).lognormal(6.4, 1.1, 10**6), 16, 4096).astype(int)
    begin = time.process_time()
    bins = pack(lengths, 4096, 0)
    assert time.process_time() - begin < 3  # 0.3 s on a quiet core
    assert lengths.sum() / (len(bins) * 4096) > 0.9999


def test_the_seed_shuffles_bins_and_ties():
    lengths = np.full(50, 3)
    assert not np.array_equal(pack(lengths, 9, 0).members, pack(lengths, 9, 1).members)
    bins = pack(np.repeat([9, 3, 1], [5, 9, 27]), 9, 5)
    sizes = [len(bins[index]) for index in range(len(bins))]
    assert sorted(sizes) == [1] * 5 + [3] * 3 + [9] * 3 and sizes != sorted(sizes)


def test_lengths_out_of_range_are_a_defect():
    for lengths in ([0], [11]):
        with pytest.raises(ValueError, match="1 .. 10"):
            pack(np.array(lengths), 10, 0)


def spool(folder, sequences):
    with SpoolWriter(folder, EOS) as writer:
        for ids, mask in sequences:
            writer.add(np.array(ids, np.int32), np.array(mask, np.uint8))
    return folder


def read(folder, split):
    paths = sorted((folder / split).glob("*.parquet")) if (folder / split).exists() else []
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def numbered(count, first=100, length=4):
    return [([first + i] * length, [0, 0] + [1] * (length - 2)) for i in range(count)]


def test_golden_columns(tmp_path):
    folder = spool(tmp_path / "a", [([10, 11, 12, 13], [0, 0, 1, 1]), ([20, 21], [0, 1])])
    counts = write_packed({"a": (folder, 1.0)}, 8, 1, 0, 0.0, tmp_path / "out")
    (path,) = (tmp_path / "out" / "train").iterdir()
    table = pq.read_table(path)
    assert path.name == "packed_00000.parquet"
    assert table.schema.field("input_ids").type == pa.list_(pa.int32())
    assert table.schema.field("loss_mask").type == pa.list_(pa.uint8())
    assert table.schema.field("seq_start_id").type == pa.list_(pa.int32())
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert table.to_pylist() == [
        {
            "input_ids": [10, 11, 12, 13, 20, 21],
            "loss_mask": [0, 1, 1, 0, 1, 0],
            "seq_start_id": [0, 4],
        }
    ]
    fill = {"rows": 1, "sequences": 2, "tokens": 6, "trained_tokens": 3, "fill": 0.75}
    assert counts["train"] == fill
    assert not (tmp_path / "out" / "valid").exists()
    assert counts["valid"]["rows"] == 0


def test_padding_for_context_parallelism(tmp_path):
    folder = spool(tmp_path / "a", [([10, 11, 12, 13], [0, 0, 1, 1])])
    counts = write_packed({"a": (folder, 1.0)}, 16, 4, 0, 0.0, tmp_path / "out")
    assert read(tmp_path / "out", "train") == [
        {"input_ids": [10, 11, 12, 13, EOS], "loss_mask": [0, 1, 1, 0, 0], "seq_start_id": [0]}
    ]
    assert counts["sources"]["a"]["tokens"] == 4 and counts["train"]["tokens"] == 5


def test_cut_sequences_that_train_nothing_are_dropped(tmp_path):
    sequences = [
        ([1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 1, 1]),
        ([1, 2, 3, 4, 9, 9], [0, 0, 0, 0, 1, 1]),
        ([5], [1]),
    ]
    folder = spool(tmp_path / "a", sequences)
    counts = write_packed({"a": (folder, 1.0)}, 4, 1, 0, 0.0, tmp_path / "out")
    assert read(tmp_path / "out", "train") == [
        {"input_ids": [1, 2, 3, 4], "loss_mask": [0, 1, 1, 0], "seq_start_id": [0]}
    ]
    source = counts["sources"]["a"]
    assert (source["in"], source["truncated"], source["train"]) == (3, 2, 1)
    assert source["dropped"] == {"no_trained_tokens": 2}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(8, 20), min_size=2, max_size=15), min_size=4, max_size=40),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.integers(0, 3),
)
def test_every_sequence_is_in_one_split_once(tmp_path_factory, contents, multiple, fraction, seed):
    folder = tmp_path_factory.mktemp("packed")
    half = len(contents) // 2
    spools = {}
    for name, part in (("a", contents[:half]), ("b", contents[half:])):
        masked = [(ids, [0] + [1] * (len(ids) - 1)) for ids in part]
        spools[name] = (spool(folder / name, masked), 1.0)
    if len({tuple(ids) for ids in contents}) < 4:
        return
    try:
        counts = write_packed(spools, 20, multiple, seed, fraction, folder / "out")
    except UserError as error:
        assert "left to train on" in str(error)
        return
    found = {"train": [], "valid": []}
    for split, sequences in found.items():
        rows = read(folder / "out", split)
        assert len(rows) == counts[split]["rows"]
        for row in rows:
            ids, mask, starts = row["input_ids"], row["loss_mask"], row["seq_start_id"]
            assert len(ids) == len(mask) <= 20 and starts[0] == 0 and starts == sorted(set(starts))
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                assert (end - start - 1) % multiple == 0 and mask[end - 1] == 0
                own = sum(mask[start:end]) + 1
                assert ids[start + own : end] == [EOS] * (end - start - own)
                sequences.append(tuple(ids[start : start + own]))
    assert sorted(found["train"] + found["valid"]) == sorted(map(tuple, contents))
    assert not set(found["train"]) & set(found["valid"])
    assert bool(found["valid"]) == bool(fraction)


def test_equal_arguments_give_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "ROW_GROUP", 3)
    monkeypatch.setattr(packing, "ROWS_PER_FILE", 7)
    folder = spool(tmp_path / "a", numbered(90))
    contents = []
    for name in ("one", "two"):
        write_packed({"a": (folder, 1.0)}, 16, 1, 3, 0.1, tmp_path / name)
        paths = sorted((tmp_path / name).rglob("*.parquet"))
        contents.append([(path.name, path.read_bytes()) for path in paths])
    assert contents[0] == contents[1]
    train = sorted((tmp_path / "one" / "train").iterdir())
    assert [pq.ParquetFile(path).metadata.num_rows for path in train] == [7, 7, 7]
    assert pq.ParquetFile(train[0]).metadata.num_row_groups == 3
    ids = {i for row in read(tmp_path / "one", "train") for i in row["input_ids"]}
    held = {i for row in read(tmp_path / "one", "valid") for i in row["input_ids"]}
    assert len(ids) == 81 and len(held) == 9 and not ids & held


def test_pandas_is_not_imported(tmp_path):
    folder = spool(tmp_path / "a", numbered(9))
    code = (
        "import sys; from nemoflow.packing import write_packed;"
        f"write_packed({{'a': ({str(folder)!r}, 1.0)}}, 16, 1, 0, 0.0, {str(tmp_path / 'o')!r});"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
