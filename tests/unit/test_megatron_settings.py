"""A job's settings in Megatron-Bridge's words; the container itself is tests/contract's."""

import copy
import json
from pathlib import Path

import pytest

from nemoflow import manifest, specs
from nemoflow.config import Config
from nemoflow.engines.megatron import data
from nemoflow.engines.megatron.settings import config_key, settings
from nemoflow.errors import UserError
from nemoflow.files import write_json

CONFIG = Config(Path(__file__).parents[2] / "config")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """super3's first phase, at work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    shard = ["1.0", "results/data/tokens/super3/finepdfs/0000/train_00000"]
    write_json("blend.json", {"train": shard, "valid": shard, "test": shard})
    Path("results/data/tokenizers/super3").mkdir(parents=True)
    config, options = specs.pretrain(CONFIG, "super3", "phase1")
    return {
        "task": "pretrain",
        "title": "pretrain.phase1",
        "config": copy.deepcopy(config),
        "options": options,
        "seed": config["seed"],
        "inputs": {"blend": "blend.json", "init": None},
        "progress": "results/super3/pretrain/phase1/progress",
    }


def value(job, field, gpu="b200"):
    return settings(job, gpu)[field].value


def test_values_are_plain(job):
    """Without torch every value can be written as JSON."""
    assert json.dumps({field: told.value for field, told in settings(job, "b200").items()})


def test_every_number_of_the_config_is_told(job):
    """Keys that no field comes from are those that Megatron-Bridge has no field for."""
    told = {setting.key for setting in settings(job, "b200").values()}

    def leaves(config, above=""):
        for name, inner in config.items():
            if isinstance(inner, dict):
                yield from leaves(inner, f"{above}{name}.")
            else:
                yield above + name

    untold = set(leaves(job["config"])) - told
    assert untold == {
        "engine",
        "model.max_positions",  # checked against batch.sequence
        "model.mamba.conv",  # 4 in megatron-core's mixer
    }
    job["config"]["model"]["mamba"]["conv"] = 3
    with pytest.raises(UserError, match=r"model\.mamba\.conv: .* width of 4"):
        settings(job, "b200")


def test_own_tokenizer(job):
    """The data's own pin, and an error that names it where its bytes are missing."""
    assert value(job, "tokenizer.tokenizer_model") == "results/data/tokenizers/super3"
    Path("results/data/tokenizers/super3").rmdir()
    with pytest.raises(UserError, match="results/data/tokenizers/super3: .* is not there"):
        settings(job, "b200")


def test_continuing(job):
    """A phase goes on from the one before, until it has a checkpoint of its own."""
    job["config"]["init"], job["inputs"]["init"] = "continue", "results/super3/phase1/checkpoint"
    assert value(job, "checkpoint.load") == "results/super3/phase1/checkpoint"
    own = Path(job["progress"]) / "megatron"
    own.mkdir(parents=True)
    (own / "latest_checkpointed_iteration.txt").write_text("200")
    assert value(job, "checkpoint.load") == str(own)
    assert value(job, "checkpoint.exit_on_missing_checkpoint")


def test_unfinished_checkpoint_is_none(job):
    """A folder without its tracker file is no checkpoint: its save was cut off."""
    job["config"]["init"], job["inputs"]["init"] = "continue", "before"
    (Path(job["progress"]) / "megatron/iter_0000200").mkdir(parents=True)
    assert value(job, "checkpoint.load") == "before"


@pytest.mark.parametrize(
    ("gpu", "precision", "said"),
    [
        ("h100", "nvfp4", "no nvfp4 on h100 GPUs; set one of bf16, fp8"),
        ("b200", "fp32", "no fp32 on b200"),
        ("v100", "bf16", "of v100 GPUs nothing is known"),
    ],
)
def test_precisions(gpu, precision, said, job):
    job["config"]["precision"] = precision
    with pytest.raises(UserError, match=f"^precision: .*{said}"):
        settings(job, gpu)


def test_further_fields(job):
    """Nested by name; none that a key of ours says."""
    job["config"]["megatron"] = {"model": {"recompute_granularity": "full"}}
    assert settings(job, "b200")["model.recompute_granularity"].key.startswith("megatron.")
    job["config"]["megatron"] = {"train": {"global_batch_size": 8}}
    with pytest.raises(UserError, match=r"megatron.train.global_batch_size: batch.global says"):
        settings(job, "b200")


@pytest.mark.parametrize(
    ("sizes", "multiple"),
    [
        ({"context": 1, "tensor": 4, "sequence": False}, 1),
        ({"context": 1, "tensor": 4, "sequence": True}, 4),
        ({"context": 16, "tensor": 2, "sequence": True}, 32),
        ({"context": 8, "tensor": 4, "sequence": True}, 32),
        ({"context": 2, "tensor": 8, "sequence": False}, 4),
    ],
)
def test_padding(sizes, multiple, tmp_path):
    """Before the packed rows are there, as the parallel sizes ask."""
    job = {"inputs": {"data": str(tmp_path / "packed")}, "config": {"parallel": sizes}}
    assert data.pad_multiple(job) == multiple


def test_packed_rows_and_what_is_said_of_them(tmp_path, monkeypatch):
    """Of imported rows the tokenizer is the one that they were checked against."""
    monkeypatch.chdir(tmp_path)
    config, options = specs.sft(CONFIG, "super3-smoke")
    job = {"task": "sft", "title": "sft", "config": config, "options": options, "seed": 1}
    job |= {"inputs": {"data": "packed", "init": "init"}, "progress": "progress"}
    Path("packed/train").mkdir(parents=True)
    Path("packed/packing.json").touch()
    Path("tokenizers/tiny").mkdir(parents=True)
    manifest.write("tokenizers/tiny.json", {"stage": "tokenizer"})
    identity = {"stage": "pack", "import": "given", "pad_multiple": 8}
    manifest.write("packed.json", identity, ["tokenizers/tiny.json"])
    rows = "dataset.offline_packing_specs"
    assert value(job, "tokenizer.tokenizer_model") == "tokenizers/tiny"
    assert value(job, f"{rows}.pad_seq_to_mult") == 8
    assert value(job, f"{rows}.packed_metadata_path") == "packed/packing.json"
    assert value(job, f"{rows}.packed_val_data_path") is None
    assert value(job, "dataset.do_validation") is False
    Path("packed/valid").mkdir()
    assert value(job, f"{rows}.packed_val_data_path") == "packed/valid"
    asked = {"offline_packing_specs": {"pad_cu_seqlens": True}}
    job["config"]["megatron"] = {"dataset": asked | {"dataset_kwargs": {"pad_to_max_length": True}}}
    assert value(job, f"{rows}.pad_cu_seqlens") is True


def test_keys(job):
    """A field's key is the run file's, for messages."""
    assert config_key(job, "parallel.expert") == "pretrain.phases.phase1.parallel.expert"
    assert config_key(job, "model.moe.latent") == "pretrain.model.moe.latent"
    assert config_key({"task": "sft"}, "batch.global") == "sft.batch.global"
    assert config_key({"task": "sft"}, "model.layers") == "pretrain.model.layers"
