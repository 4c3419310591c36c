"""Megatron's checkpoints, read without torch; those of the test are torch.distributed's own."""

import os
import pickle

import pytest

from nemoflow import torch_dist
from nemoflow.errors import UserError
from small_models import MODEL, megatron

PIECE = "__0_0.distcp"


@pytest.fixture
def folder(tmp_path):
    return megatron(tmp_path / "m")


def test_the_newest_iteration_is_found(folder):
    newest = folder / "iter_0000100"
    assert torch_dist.iteration_folder(folder) == newest
    assert torch_dist.iteration_folder(newest) == newest
    assert torch_dist.iteration_folder(folder.parent) is None
    (folder / torch_dist.TRACKER).write_text("200\n")
    with pytest.raises(UserError, match="says '200', but there is no folder iter_0000200"):
        torch_dist.iteration_folder(folder)
    (folder / torch_dist.TRACKER).unlink()
    with pytest.raises(UserError, match="name one of iter_0000050, iter_0000100 itself"):
        torch_dist.iteration_folder(folder)


def test_tensors_and_files_are_those_that_were_saved(folder):
    found = torch_dist.check(folder / "iter_0000100")
    assert {name: (tensor.dtype, tensor.size) for name, tensor in found.tensors.items()} == {
        "decoder.layers.0.weight": ("bfloat16", 32),
        "optimizer.state.exp_avg.decoder.layers.0.weight": ("float32", 32),
    }
    assert found.files == {PIECE: (folder / "iter_0000100" / PIECE).stat().st_size}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / PIECE).unlink(), f"1 files of .metadata are missing: {PIECE}"),
        (lambda f: os.truncate(f / PIECE, 100), f"{PIECE}: cut short: 100 of"),
        (lambda f: os.truncate(f / ".metadata", 300), r".metadata: not readable as torch.distrib"),
        (lambda f: (f / ".metadata").write_bytes(pickle.dumps([1])), ".metadata: not readable"),
        (lambda f: (f / "common.pt").unlink(), "no Megatron checkpoint without common.pt"),
        (lambda f: (f / "metadata.json").write_text("{}"), "names no sharded_backend"),
        (lambda f: (f / "metadata.json").write_text('{"sharded_backend": "zarr"}'), "format zarr"),
        (lambda f: (f / "run_config.yaml").write_text("a: [b"), "run_config.yaml: not readable"),
    ],
)
def test_what_is_damaged_is_named(folder, damage, said):
    iteration = folder / "iter_0000100"
    damage(iteration)
    with pytest.raises(UserError, match=said):
        torch_dist.check(iteration)
        torch_dist.model_config(iteration)


class Evil:
    """A pickle that would run a command when it is read."""

    def __reduce__(self):
        return os.system, ("touch evil",)


def test_nothing_that_a_pickle_names_is_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "iter_0000100/.metadata").write_bytes(pickle.dumps({"state_dict_metadata": Evil()}))
    with pytest.raises(UserError, match="not readable"):
        torch_dist.check(folder / "iter_0000100")
    assert not (folder / "evil").exists()


def test_megatrons_words_are_compared(folder):
    assert torch_dist.model_config(folder / "iter_0000100") == {"hidden_size": 8, "num_layers": 3}
    config = {"hybrid_layer_pattern": "M*E/*E/*E", "num_layers": 4, "moe_latent_size": None}
    assert torch_dist.differences(config, MODEL) == ["num_layers: 4; pretrain.model.layers: 3"]
    (folder / "iter_0000100/run_config.yaml").unlink()
    assert torch_dist.model_config(folder / "iter_0000100") == {}
