"""Means of checkpoints in torch.distributed's format, as megatron-core's are."""

import json
import warnings

import pytest
import torch
from torch.distributed import checkpoint

from nemoflow import torch_dist
from nemoflow.engines.megatron.merge import Reader, merge
from nemoflow.errors import UserError
from nemoflow.files import read_json

WEIGHT = "decoder.layers.0.mixer.in_proj.weight"


def save(folder, step, value, **more):
    """A checkpoint of a training as it is published; the trackers are those of one iteration."""
    iteration = folder / f"iter_{step:07d}"
    tensors = {
        WEIGHT: torch.full((4, 8), value, dtype=torch.bfloat16),
        "decoder.layers.1.mlp.router.expert_bias": torch.full((2,), value),
        "optimizer.state.exp_avg." + WEIGHT: torch.zeros(4, 8),
        "common_state/shard_0_1": torch.tensor([step]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is one process
        checkpoint.save(tensors | more, checkpoint_id=str(iteration), no_dist=True)
    told = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}
    (iteration / "metadata.json").write_text(json.dumps(told))
    (iteration / "run_config.yaml").write_text("model: {}\n")
    (iteration / "train_state.pt").write_bytes(b"state")
    (folder / torch_dist.TRACKER).write_text(str(step))
    (folder / "state.json").write_text(json.dumps({"task": "pretrain", "step": step}))
    return str(folder)


def job(tmp_path, folders):
    (tmp_path / "progress").mkdir()
    return {"inputs": {"checkpoints": folders}, "progress": str(tmp_path / "progress")}


@pytest.mark.filterwarnings("ignore")
def test_the_mean_is_of_the_weights_alone_and_in_float32(tmp_path):
    values = {100: 1.0, 200: 1.0078125, 300: 1.015625}  # neighbours in bfloat16
    folders = [save(tmp_path / str(step), step, value) for step, value in values.items()]
    assert merge(job(tmp_path, folders)) == 0
    final = tmp_path / "progress" / "final"
    assert torch_dist.iteration_folder(final) == final / "iter_0000300"
    found = torch_dist.check(final / "iter_0000300").tensors
    assert sorted(found) == [
        "common_state/shard_0_1",
        WEIGHT,
        "decoder.layers.1.mlp.router.expert_bias",
    ]
    reader = Reader(final / "iter_0000300")
    assert reader.tensor(WEIGHT).dtype == torch.bfloat16
    assert torch.equal(reader.tensor(WEIGHT), torch.full((4, 8), 1.0078125).bfloat16())
    assert torch.equal(reader.tensor("common_state/shard_0_1"), torch.tensor([300]))
    assert read_json(final / "state.json") == {"task": "pretrain", "step": 300}
    assert read_json(tmp_path / "progress" / "merged.json") == {"steps": [100, 200, 300]}


@pytest.mark.filterwarnings("ignore")
def test_bytes_are_the_lasts(tmp_path):
    extra = "decoder.layers.0.mixer._extra_state/shard_0_1"
    folders = [
        save(tmp_path / str(step), step, 1.0, **{extra: f"of step {step}"}) for step in (1, 2)
    ]
    merge(job(tmp_path, folders))
    raw = Reader(tmp_path / "progress" / "final" / "iter_0000002").bytes_of(extra)
    assert torch.load(raw, weights_only=True) == "of step 2"


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_two_models_have_no_mean(tmp_path):
    odd = {"decoder.layers.9.weight": torch.zeros(2)}
    folders = [save(tmp_path / "1", 1, 1.0, **odd), save(tmp_path / "2", 2, 1.0)]
    with pytest.raises(
        UserError, match="not of the same model .* first difference decoder.layers.9"
    ):
        merge(job(tmp_path, folders))
    assert not (tmp_path / "progress" / "final").exists()


def test_what_is_no_checkpoint_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no Megatron checkpoint to average"):
        merge(job(tmp_path, [str(tmp_path / "empty")]))
