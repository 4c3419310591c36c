"""Packed rows that exist, as a mixture."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemoflow import import_packed, manifest, packed_rows, specs
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.packing import write_packed
from small_spool import spool

SIZES = {"pack_size": 9, "pad_multiple": 2}
GOOD = {"input_ids": [1, 2, 3, 4, 5, 6], "loss_mask": [0, 1, 0, 0, 1, 0], "seq_start_id": [0, 3]}
TYPES = {"input_ids": pa.int32(), "loss_mask": pa.uint8(), "seq_start_id": pa.int32()}


def write(path, rows, **types):
    """A packed file of rows; a type of None leaves the column out."""
    kinds = {name: kind for name, kind in (TYPES | types).items() if kind}
    columns = {
        name: pa.array([row[name] for row in rows], pa.list_(kind)) for name, kind in kinds.items()
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def take(tmp_path, monkeypatch):
    """Imports ./given into ./taken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    return lambda written="given": import_packed.take(
        {"import": written, **SIZES}, {"vocabulary": 50}, tmp_path / "taken"
    )


def test_what_we_packed_comes_back(take, tmp_path):
    random = np.random.default_rng(0)
    rows = [
        [(random.integers(8, 50, n), random.integers(0, 2, n))] for n in random.integers(2, 9, 300)
    ]
    told = {"weights": {"a": 1.0}, "valid_fraction": 0.1, **SIZES}
    counts = write_packed({"a": spool(tmp_path / "a", rows)}, told, "given")
    found = take()
    for split in ("train", "valid"):
        assert found[split] == {k: v for k, v in counts[split].items() if k != "padding"}
    for path in sorted(Path("given").rglob("*.*")):
        copy = tmp_path / "taken" / path.relative_to("given")
        assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("written", ["given", "given/x.parquet", "given/*.parquet"])
def test_files_without_splits_are_for_training(written, take, tmp_path):
    write("given/x.parquet", [GOOD, GOOD], loss_mask=pa.int8())
    write("given/.hidden.parquet", [GOOD])
    found = take(written)
    assert found["imported"] == [
        {"path": "train/packed_00000.parquet", "from": "x.parquet", "rows": 2}
    ]
    counts = {"rows": 2, "sequences": 4, "tokens": 12, "trained_tokens": 4, "fill": 0.6667}
    assert found["train"] == counts and found["valid"]["rows"] == 0
    assert not (tmp_path / "taken/valid").exists()


FAULTS = {
    "lengths": ({"loss_mask": [0, 1, 0]}, "input_ids and loss_mask differ in length"),
    "too long": (
        {"input_ids": [1] * 11, "loss_mask": [0] * 11, "seq_start_id": [0]},
        "more than pack_size 9",
    ),
    "no tokens": ({"input_ids": [], "loss_mask": [], "seq_start_id": []}, "no tokens"),
    "null": ({"seq_start_id": None}, "a null"),
    "null inside": ({"input_ids": [1, 2, None, 4, 5, 6]}, "a null"),
    "id": ({"input_ids": [1, 2, 3, 4, 50, 6]}, "id 50 is not one of the tokenizer's 50"),
    "negative id": ({"input_ids": [1, 2, 3, 4, -1, 6]}, "id -1 is not"),
    "mask": ({"loss_mask": [0, 2, 0, 0, 1, 0]}, "loss_mask not 0 or 1"),
    "no start": ({"seq_start_id": []}, "seq_start_id must rise from 0"),
    "first start": ({"seq_start_id": [1, 3]}, "seq_start_id must rise from 0"),
    "equal starts": ({"seq_start_id": [0, 0, 3]}, "seq_start_id must rise from 0"),
    "end as a start": ({"seq_start_id": [0, 3, 6]}, "seq_start_id must rise from 0 and stay below"),
    "last mask": ({"loss_mask": [0, 1, 1, 0, 1, 0]}, "the last loss_mask of a sequence must be 0"),
    "very last mask": ({"loss_mask": [0, 1, 0, 0, 1, 1]}, "the last loss_mask of a sequence"),
    "padding": (
        {"seq_start_id": [0, 2]},
        "a sequence of 2 tokens; (length - 1) must be a multiple",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_file_and_row(fault, take, tmp_path, monkeypatch):
    monkeypatch.setattr(packed_rows, "AT_ONCE", 3 * SIZES["pack_size"])
    changed, said = FAULTS[fault]
    write("given/train/a.parquet", [GOOD] * 2)
    write("given/train/b.parquet", [*[GOOD] * 7, GOOD | changed, GOOD])
    with pytest.raises(UserError, match=re.escape(f"given/train/b.parquet: row 8: {said}")):
        take()
    assert not (tmp_path / "taken").exists()


def test_of_several_faults_the_first_row_is_told(take):
    write("given/a.parquet", [GOOD, GOOD | {"loss_mask": [2] * 6}, GOOD | {"seq_start_id": []}])
    with pytest.raises(UserError, match="row 2: loss_mask"):
        take()


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ({"loss_mask": None}, "no column loss_mask; its columns: input_ids, seq_start_id"),
        ({"input_ids": pa.int64()}, "column input_ids is list<element: int64>, not list<int32>"),
        ({"loss_mask": pa.int32()}, "not list<uint8> or list<int8>"),
    ],
)
def test_columns(types, said, take):
    write("given/a.parquet", [GOOD], **types)
    with pytest.raises(UserError, match=f"given/a.parquet: .*{said}"):
        take()


def test_an_early_look_at_the_path(config_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = "import: given\ntokenizer: tiny\npack_size: 9\n"
    (config_folder / "mixtures/taken.yaml").write_text(there)
    config, product = Config(config_folder), tmp_path / "taken.json"
    with pytest.raises(UserError, match="mixtures/taken.yaml:1: import: given: there is no such"):
        import_packed.check_early(config, "taken", product)
    manifest.write(product, specs.of(config, "pack", {"mixture": "taken"}).identity)
    import_packed.check_early(config, "taken", product)
    import_packed.check_early(config, "micro", tmp_path / "none.json")


def test_places_without_rows(take):
    for written, said in (
        ("given", "there is no such folder or file"),
        ("empty", "no Parquet files lie in this folder"),
        ("empty/text.txt", "not a Parquet file"),
        ("held", "rows to validate on (valid/), but none in train/"),
        ("none", "its files hold no rows to train on"),
        ("broken", "broken/a.parquet is not a whole Parquet file"),
    ):
        Path("taken").mkdir(exist_ok=True)
        Path("empty").mkdir(exist_ok=True)
        Path("empty/text.txt").touch()
        write("held/valid/a.parquet", [GOOD])
        write("none/a.parquet", [])
        Path("broken").mkdir(exist_ok=True)
        Path("broken/a.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(UserError, match=re.escape(said)):
            take(written)
