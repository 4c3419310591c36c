"""Models of other people as the beginning of a run: found, checked, copied."""

import os
import shutil
from pathlib import Path

import pytest

from nemoflow import files, imports, manifest, specs, stages, training
from nemoflow.config import Config
from nemoflow.config.base import plain
from nemoflow.errors import UserError
from small_config import with_runs
from small_models import MODEL, huggingface, megatron, safetensors

PARITY = "results/x/parity/init.json"
USE = {"readers": {"sft.engine": "megatron"}, "continues": None}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """In a folder of its own, with a stand-in for the engine that converts what was copied."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "run_job", as_it_is)


def as_it_is(build, folder, log, machine, **job):
    assert job == {"task": "import", "title": "import", "inputs": {"model": f"{folder}/model"}}
    (folder / "model").rename(folder / "final")
    files.write_json(folder / "parity.json", {"verdict": "passed"})


def taken(path, model=MODEL, **use):
    """Import a model by its stage; the manifest."""
    identity = {"stage": "import_model", "version": 1, "import": str(path), "model": model}
    files.write_json("spec.json", {
        "stage": "import_model", "run": "x", "identity": identity, "options": {**USE, **use},
    })  # fmt: skip
    stages.import_model("spec.json", "results/x/init.json", PARITY, "log")
    return manifest.read("results/x/init.json")


def inside(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def test_a_hugging_face_model_is_taken_as_it_is():
    source = huggingface(Path("model"))
    (source / "tokenizer.json").write_text("{}")
    (source / ".cache").mkdir()
    (source / ".gitattributes").touch()
    before = {name: (source / name).read_bytes() for name in inside(source) if name[0] != "."}
    content = taken("model")
    assert content["model"] == {
        "format": "huggingface", "transformers": "4.55.4", "tensors": 3, "parameters": 258,
        "dtype": "bfloat16",
    }  # fmt: skip
    assert {name: Path(f"results/x/init/{name}").read_bytes() for name in before} == before
    assert [file["path"] for file in content["files"]] == sorted(before)
    assert str(Path.cwd()) not in Path("results/x/init.json").read_text()
    assert files.read_json(PARITY) == {"verdict": "passed"}


def test_links_of_a_download_are_followed():
    source = huggingface(Path("blobs"), {"model.safetensors": {"lm_head.weight": ("F32", [4])}})
    Path("snapshot").mkdir()
    for name in inside(source):
        Path("snapshot", name).symlink_to(source.absolute() / name)
    taken("snapshot")
    assert not [path for path in Path("results/x/init").iterdir() if path.is_symlink()]
    Path("snapshot/config.json").unlink()
    Path("snapshot/config.json").symlink_to("nowhere")
    with pytest.raises(UserError, match="model.safetensors, but no config.json beside it"):
        imports.find("snapshot")


@pytest.mark.parametrize("asked", ["m", "m/iter_0000100"])
def test_of_a_megatron_checkpoint_the_newest_iteration_is_taken(asked):
    megatron(Path("m"))
    content = taken(asked)
    assert content["model"] == {
        "format": "megatron", "backend": "torch_dist", "backend_version": 1, "iteration": 100,
        "optimizer": True, "tensors": 1, "parameters": 32, "dtype": "bfloat16",
    }  # fmt: skip
    assert inside("results/x/init") == [
        "iter_0000100/.metadata",
        "iter_0000100/__0_0.distcp",
        "iter_0000100/common.pt",
        "iter_0000100/metadata.json",
        "iter_0000100/run_config.yaml",
        "latest_checkpointed_iteration.txt",
    ]
    assert Path("results/x/init/latest_checkpointed_iteration.txt").read_text() == "100\n"
    skipped = "the model stays in the format it came in (megatron)"
    assert files.read_json(PARITY) == {"skipped": skipped, "verdict": "passed"}


def empty(folder):
    folder.mkdir()


def both(folder):
    megatron(folder)
    safetensors(folder / "model.safetensors", {})


def pickled(folder):
    folder.mkdir()
    (folder / "pytorch_model.bin").touch()


def other_config(folder):
    huggingface(folder, hidden_size=16, n_routed_experts=4)


def without_config(folder):
    (huggingface(folder) / "config.json").unlink()


def no_json(folder):
    (huggingface(folder) / "config.json").write_text("{")


def truncated(folder):
    shard = huggingface(folder) / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)


def shard_missing(folder):
    (huggingface(folder) / "model-00001-of-00002.safetensors").unlink()


def with_mtp(folder):
    huggingface(folder, {"model.safetensors": {"mtp.layers.0.enorm.weight": ("F32", [8])}})


def other_megatron(folder):
    megatron(folder, "{hidden_size: 16, hybrid_override_pattern: MM*}")


BROKEN = {
    lambda folder: None: "init.import: m: there is no such folder",
    Path.touch: "init.import: m: a file; name the folder that holds it",
    empty: "init.import: m: the folder is empty",
    lambda f: (empty(f), (f / "README").touch()): "m: neither a Hugging Face model",
    both: "two models in one folder: a Megatron checkpoint (iter_0000100) and model.safetensors",
    pickled: "weights as pytorch_model.bin; convert them to safetensors",
    without_config: "but no config.json beside it",
    no_json: "m/config.json: not readable as JSON",
    other_config: "m/config.json: not the architecture of the run:\n"
    "  hidden_size: 16; pretrain.model.hidden_size: 8\n"
    "  n_routed_experts: 4; pretrain.model.moe.experts: 2\n",
    other_megatron: "m/iter_0000100/run_config.yaml: not the architecture of the run:\n"
    "  hidden_size: 16; pretrain.model.hidden_size: 8\n"
    "  hybrid_override_pattern: MM*; pretrain.model.pattern: M*E\n",
    truncated: "model-00002-of-00002.safetensors: cut short",
    shard_missing: "1 shards of model.safetensors.index.json are missing",
    with_mtp: "it has weights of an MTP head (mtp.*), but pretrain.model.mtp is not set; set it",
}


@pytest.mark.parametrize("make", BROKEN)
def test_what_cannot_be_taken_is_refused_and_leaves_nothing(make):
    make(Path("m"))
    with pytest.raises(UserError) as error:
        taken("m")
    assert BROKEN[make] in str(error.value)
    assert not Path("results/x/init").exists() and not Path("results/x/init.json").exists()


def test_a_model_that_lost_its_mtp_head_is_refused():
    huggingface(Path("m"), num_nextn_predict_layers=1)
    mtp = {"pattern": "*E", "depths": 1, "loss_scale": 0.3}
    with pytest.raises(UserError, match=r"no weights of an MTP head .* is set; set it to null"):
        taken("m", {**MODEL, "mtp": mtp})


def test_a_format_that_an_engine_cannot_begin_with_is_refused():
    huggingface(Path("hf"))
    megatron(Path("m"))
    with pytest.raises(UserError, match=r"^sft.engine: the local engine cannot read the Megatron"):
        taken("m", readers={"sft.engine": "local"})
    with pytest.raises(UserError, match=r"^a.init: continue needs an optimizer, and hf \("):
        taken("hf", continues="a.init")
    assert taken("m", continues="a.init")["model"]["optimizer"]


def test_a_copy_that_was_stopped_is_begun_again(monkeypatch):
    huggingface(Path("m"))
    first = taken("m")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(imports, "copied", stop)
    with pytest.raises(KeyboardInterrupt):
        taken("m")
    assert manifest.tree_md5(manifest.list_bytes("results/x/init.json")) == first["md5"]
    monkeypatch.undo()


def test_bytes_are_copied_where_they_cannot_be_shared(monkeypatch):
    huggingface(Path("m"))
    shared = taken("m")["md5"]

    def cannot(*_):
        raise OSError

    monkeypatch.setattr(imports.fcntl, "ioctl", cannot)
    monkeypatch.setattr(imports, "CHUNK", 7)
    assert taken("m")["md5"] == shared


CHILD = "extends: micro\nstart: {start}\ninit: {{import: model}}\n"


@pytest.fixture
def config(config_folder):
    micro = plain(Config(config_folder).run("micro").pretrain.model)
    del micro["mtp"]
    text = CHILD.format(start="sft") + "pretrain: {model: {mtp: null}}\n"
    later = CHILD.format(start="rl") + "eval: {stages: [sft, rl]}\n"
    config = with_runs(config_folder, child=text, later=later)
    model = {"ffn": None, "mtp": None, **micro}
    folder = huggingface(Path("model"))
    files.write_json(folder / "config.json", imports.hub.hub_config(model))
    return config


def test_a_spec_holds_the_path_as_written_and_the_architecture(config):
    spec = specs.of(config, "import_model", {"run": "child"})
    assert spec.identity["import"] == "model"
    assert spec.identity["model"] == plain(config.run("child").pretrain.model)
    assert spec.options == {
        "readers": {"pretrain.engine": "local", "sft.engine": "local"}, "continues": None,
    }  # fmt: skip
    later = specs.of(config, "import_model", {"run": "later"})
    assert later.options["readers"] == {"sft.engine": "local"}  # it writes the export of `sft`
    with pytest.raises(UserError, match="micro imports no model"):
        specs.of(config, "import_model", {"run": "micro"})


def test_a_missing_path_is_told_until_the_product_stands(config):
    product = Path("results/child/init.json")
    imports.check_early(config, "child", product)
    spec = specs.of(config, "import_model", {"run": "child"})
    shutil.rmtree("model")
    said = r"config/child.yaml:3: init.import: model: there is no such folder"
    with pytest.raises(UserError, match=said):
        imports.check_early(config, "child", product)
    manifest.write(product, spec.identity, model={"format": "huggingface"})
    imports.check_early(config, "child", product)
    manifest.write(product, {**spec.identity, "import": "other"}, model={"format": "huggingface"})
    with pytest.raises(UserError, match=said):
        imports.check_early(config, "child", product)
    manifest.write(product, spec.identity, model={"format": "megatron"})
    with pytest.raises(UserError, match="pretrain.engine: the local engine cannot read"):
        imports.check_early(config, "child", product)
