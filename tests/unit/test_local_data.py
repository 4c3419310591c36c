"""What the local engine trains on: blended windows and unpacked conversations."""

import json

import numpy as np
import pytest

import local_jobs
from nemoflow.engines.local.blended import Blend, choose_sources, read_split, windows_in_order
from nemoflow.engines.local.packed import PackedRows
from nemoflow.errors import UserError


def test_blended_sources_keep_to_their_weights():
    sources = choose_sources(np.array([3.0, 1.0, 1.0]), 1000)
    for count in (5, 50, 1000):
        taken = np.bincount(sources[:count], minlength=3)
        assert np.abs(taken - np.array([0.6, 0.2, 0.2]) * count).max() <= 1.5


def test_an_epoch_shows_every_window_once_and_sample_i_knows_no_horizon(tmp_path):
    shards = read_split(local_jobs.blend(tmp_path), "train")
    blend = Blend(shards[:1], 32, 200, seed=1)
    windows = (len(shards[0].tokens) - 1) // 32
    epochs = [
        sorted(tuple(blend.sample(i)) for i in range(start, start + windows))
        for start in (0, windows)
    ]
    assert epochs[0] == epochs[1]
    assert [tuple(blend.sample(i)) for i in range(windows)] != [
        tuple(blend.sample(i)) for i in range(windows, 2 * windows)
    ]
    longer = Blend(shards[:1], 32, 400, seed=1)
    assert all(np.array_equal(blend.sample(i), longer.sample(i)) for i in range(200))


def test_a_shard_shorter_than_a_sample_is_repeated(tmp_path):
    blend = local_jobs.blend(tmp_path, length=5, documents=2)
    sample = Blend(read_split(blend, "train"), 32, 8, seed=0).sample(0)
    assert len(sample) == 33 and np.array_equal(sample[:10], sample[10:20])


def test_packed_rows_come_apart_with_their_masks(tmp_path):
    rows = PackedRows(f"{local_jobs.packed(tmp_path)}/train")
    tokens, mask = rows.batch([0, 3])
    assert tokens.shape == (4, 12) and mask.shape == (4, 11)
    assert tokens[1].tolist() == rows.rows[0][0][12:].tolist()
    assert mask.tolist() == [[False] * 6 + [True] * 5] * 4
    assert sorted(rows.chosen(0, len(rows), seed=1)) == list(range(len(rows)))
    assert rows.chosen(5, 9, seed=1) == rows.chosen(0, 14, seed=1)[5:]


def test_validation_windows_are_whole_and_bounded(tmp_path):
    shards = read_split(local_jobs.blend(tmp_path), "valid")
    windows = list(windows_in_order(shards[:1], 32, 2))
    assert [len(window) for window in windows] == [33, 33]
    assert np.array_equal(windows[1], shards[0].tokens[32:65])
    assert [len(window) for window in windows_in_order(shards[:1], 500, 2)] == [120]


def test_a_blend_names_its_corpora(tmp_path):
    shards = read_split(local_jobs.blend(tmp_path), "train")
    assert [shard.corpus for shard in shards] == ["news", "code"]


@pytest.mark.parametrize(
    ("train", "message"), [(["1.0"], "alternate"), (["1.0", "absent/train_00000"], "absent")]
)
def test_a_blend_that_cannot_be_read_is_a_user_error(train, message, tmp_path):
    (tmp_path / "blend.json").write_text(json.dumps({"train": train}))
    with pytest.raises(UserError, match=message):
        read_split(tmp_path / "blend.json", "train")


def test_packed_files_without_a_column_are_a_user_error(tmp_path):
    folder = local_jobs.packed(tmp_path)
    table = local_jobs.pq.read_table(f"{folder}/train/shard_000000.parquet").drop(["loss_mask"])
    local_jobs.pq.write_table(table, f"{folder}/train/shard_000001.parquet")
    with pytest.raises(UserError, match="loss_mask is absent"):
        PackedRows(f"{folder}/train")
