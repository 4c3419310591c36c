"""The columns that the trainer reads, and what is said of them."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow import packing
from nemoflow.errors import UserError
from nemoflow.files import read_json
from nemoflow.packing import write_packed
from small_spool import EOS, numbered, spool


def write(spools, out, pack_size, **asked):
    """Pack with equal weights."""
    weights = dict.fromkeys(spools, 1.0)
    return write_packed(spools, {"weights": weights, "pack_size": pack_size, **asked}, out)


def read(folder, split):
    paths = sorted((folder / split).glob("*.parquet")) if (folder / split).exists() else []
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_golden_columns(tmp_path):
    folder = spool(tmp_path / "a", [[([10, 11, 12, 13], [0, 0, 1, 1]), ([20, 21], [0, 1])]])
    counts = write({"a": folder}, tmp_path / "out", 8)
    (path,) = (tmp_path / "out" / "train").iterdir()
    table = pq.read_table(path)
    assert path.name == "packed_00000.parquet"
    assert table.schema.field("input_ids").type == pa.list_(pa.int32())
    assert table.schema.field("loss_mask").type == pa.list_(pa.uint8())
    assert table.schema.field("seq_start_id").type == pa.list_(pa.int32())
    columns = [pq.ParquetFile(path).metadata.row_group(0).column(i) for i in range(3)]
    assert {column.compression for column in columns} == {"ZSTD"}
    assert [column.has_dictionary_page for column in columns] == [False, False, False]
    assert table.to_pylist() == [
        {
            "input_ids": [10, 11, 12, 13, 20, 21],
            "loss_mask": [0, 1, 1, 0, 1, 0],
            "seq_start_id": [0, 4],
        }
    ]
    split = {
        "rows": 1,
        "sequences": 2,
        "tokens": 6,
        "padding": 0,
        "trained_tokens": 3,
        "fill": 0.75,
    }
    assert counts["train"] == split
    assert counts["sources"]["a"]["trained_tokens"] == {"train": 3, "valid": 0}
    assert not (tmp_path / "out" / "valid").exists()
    assert counts["valid"]["rows"] == 0
    assert read_json(tmp_path / "out/packing.json") == [
        {
            "dataset_max_seqlen": 3,
            "max_samples_per_bin": 2,
            "min_packed_seqlen": 4,
            "pack_size": 8,
            "packing_efficiency": 50.0,
            "packing_factor": 2.0,
        }
    ]


def test_padding_for_context_parallelism(tmp_path):
    folder = spool(tmp_path / "a", [[([10, 11, 12, 13], [0, 0, 1, 1])]])
    counts = write({"a": folder}, tmp_path / "out", 16, pad_multiple=4)
    assert read(tmp_path / "out", "train") == [
        {"input_ids": [10, 11, 12, 13, EOS], "loss_mask": [0, 1, 1, 0, 0], "seq_start_id": [0]}
    ]
    assert counts["sources"]["a"]["tokens"]["train"] == 4
    assert (counts["train"]["tokens"], counts["train"]["padding"]) == (5, 1)


def test_a_row_too_small_for_any_sequence(tmp_path):
    with pytest.raises(UserError, match="pack_size 4 holds no sequence padded to pad_multiple 4"):
        write({"a": spool(tmp_path / "a", numbered(2))}, tmp_path / "out", 4, pad_multiple=4)


def test_a_split_sequence_is_several(tmp_path):
    folder = spool(tmp_path / "a", [[([1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 1, 1])]])
    counts = write({"a": folder}, tmp_path / "out", 4, too_long="split")
    rows = sorted(read(tmp_path / "out", "train"), key=lambda row: row["input_ids"])
    assert [row["input_ids"] for row in rows] == [[1, 2, 3, 4], [4, 5, 6]]
    assert [row["loss_mask"] for row in rows] == [[0, 1, 1, 0], [1, 1, 0]]
    assert counts["train"]["trained_tokens"] == 4 and counts["sources"]["a"]["rows"]["train"] == 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(8, 20), min_size=2, max_size=15), min_size=4, max_size=40),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.integers(0, 3),
    st.sampled_from(["best_fit", "first_fit_shuffle", "concatenative"]),
)
def test_every_sequence_is_in_one_split_once(
    tmp_path_factory, contents, multiple, fraction, seed, algorithm
):
    folder = tmp_path_factory.mktemp("packed")
    half = len(contents) // 2
    spools = {
        name: spool(folder / name, [[(ids, [0] + [1] * (len(ids) - 1))] for ids in part])
        for name, part in (("a", contents[:half]), ("b", contents[half:]))
    }
    asked = {"pad_multiple": multiple, "seed": seed, "valid_fraction": fraction}
    counts = write(spools, folder / "out", 20, **asked, algorithm=algorithm)
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
    prompts = {split: {sequence[0] for sequence in own} for split, own in found.items()}
    assert found["train"] and not prompts["train"] & prompts["valid"]


def test_equal_arguments_give_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "GROUP", 3 * 16)
    monkeypatch.setattr(packing, "GROUPS_PER_FILE", 2)
    folder = spool(tmp_path / "a", numbered(90))
    contents = []
    for name in ("one", "two"):
        write({"a": folder}, tmp_path / name, 16, seed=3, valid_fraction=0.1)
        paths = sorted((tmp_path / name).rglob("*.*"))
        contents.append([(path.name, path.read_bytes()) for path in paths])
    assert contents[0] == contents[1]
    train = sorted((tmp_path / "one" / "train").iterdir())
    groups = [pq.ParquetFile(path).metadata for path in train]
    assert [found.num_rows for found in groups] == [6, 6, 6, 3]
    assert [found.num_row_groups for found in groups] == [2, 2, 2, 1]
    ids = {i for row in read(tmp_path / "one", "train") for i in row["input_ids"]}
    held = {i for row in read(tmp_path / "one", "valid") for i in row["input_ids"]}
    assert len(ids) == 81 and len(held) == 9 and not ids & held


def test_a_row_larger_than_a_group_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "GROUP", 10)
    write({"a": spool(tmp_path / "a", numbered(8))}, tmp_path / "out", 16)
    metadata = pq.ParquetFile(tmp_path / "out/train/packed_00000.parquet").metadata
    assert metadata.num_row_groups == metadata.num_rows == 2


def test_pandas_is_not_imported(tmp_path):
    folder = spool(tmp_path / "a", numbered(9))
    told = {"weights": {"a": 1.0}, "pack_size": 16}
    code = (
        "import sys; from nemoflow.packing import write_packed;"
        f"write_packed({{'a': {str(folder)!r}}}, {told}, {str(tmp_path / 'out')!r});"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
