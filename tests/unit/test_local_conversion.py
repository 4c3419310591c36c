"""The local engine's conversions: import, the verdict, and the average of checkpoints."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import local_jobs
from nemoflow.engines.local import conversion, merge
from nemoflow.engines.local.model import build
from nemoflow.engines.local.pretrain import Pretraining, pretrain
from nemoflow.engines.local.weights import load_weights
from nemoflow.errors import UserError
from nemoflow.files import read_json
from nemoflow.hub import hub_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(inputs, tmp_path):
    """A copy of an exported model, as an import begins with."""
    return Path(shutil.copytree(inputs["rl"]["init"], tmp_path / "model"))


def test_an_import_is_the_same_files_and_a_verdict(model, tmp_path):
    before = local_jobs.digests(model)
    job = local_jobs.job("import", tmp_path / "p", {"model": str(model)})
    assert conversion.take(job) == 0
    assert local_jobs.digests(tmp_path / "p/final") == before
    found = read_json(tmp_path / "p/parity.json")
    assert found["verdict"] == "passed" and found["dtype"] == "float32"
    assert found["logits"] == {
        "against": "transformers",
        "tokens": 128,
        "cosine": 1.0,
        "same_next_token": 1.0,
    }
    assert found["tensors"] == len(load_file(tmp_path / "p/final/model.safetensors"))


def test_a_model_in_bfloat16_comes_back_bit_for_bit(model):
    weights = load_file(model / "model.safetensors")
    kept = {name: t if "bias" in name else t.bfloat16() for name, t in weights.items()}
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
    found = conversion.examine(model, local_jobs.MODEL)
    assert found["dtype"] == "bfloat16" and found["logits"]["same_next_token"] == 1


def test_weights_of_another_model_are_no_import(model, tmp_path):
    small = local_jobs.MODEL | {"mtp": None}
    job = local_jobs.job("import", tmp_path / "p", {"model": str(model)}, model=small)
    with pytest.raises(UserError, match=r"weights do not fit the config's model section"):
        conversion.take(job)
    assert not (tmp_path / "p/final").exists() and model.exists()


def test_a_conversion_with_a_fault_is_refused(model, monkeypatch):
    real = conversion.to_hub

    def swapped(state):
        weights = real(state)
        one, other = (f"backbone.layers.0.mixer.{name}" for name in ("A_log", "D"))
        return weights | {one: weights[other], other: weights[one]}

    monkeypatch.setattr(conversion, "to_hub", swapped)
    with pytest.raises(
        UserError, match=r"2 tensors do not come back .* backbone.layers.0.mixer.A_"
    ):
        conversion.examine(model, local_jobs.MODEL)


def test_a_config_json_that_says_another_thing_fails_the_verdict(model, tmp_path):
    text = (model / "config.json").read_text()
    (model / "config.json").write_text(
        text.replace('"routed_scaling_factor": 2.5', '"routed_scaling_factor": 250.0')
    )
    conversion.take(local_jobs.job("import", tmp_path / "p", {"model": str(model)}))
    found = read_json(tmp_path / "p/parity.json")
    assert found["verdict"] == "failed" and found["values"] == "equal"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training with its last three checkpoints, and its blend."""
    folder = tmp_path_factory.mktemp("trained")
    blend = local_jobs.blend(folder)
    options = local_jobs.OPTIONS | {"save_every": 2, "keep": 3}
    job = local_jobs.job(
        "pretrain", folder / "p", {"blend": blend}, options=options, stop_iteration=8
    )
    pretrain(job)
    return [str(folder / f"p/step_000000{step}") for step in (4, 6, 8)], blend


def test_the_merged_checkpoint_is_the_mean_and_trains_on(trained, tmp_path):
    sources, blend = trained
    given = {"checkpoints": sources, "blend": blend}
    assert merge.merge(local_jobs.job("merge", tmp_path, given)) == 0
    found = load_file(tmp_path / "final/model.safetensors")
    each = [load_file(f"{source}/model.safetensors") for source in sources]
    for name, tensor in found.items():
        expected = torch.stack([weights[name].double() for weights in each]).mean(0)
        torch.testing.assert_close(tensor.double(), expected, atol=1e-7, rtol=1e-6)
    state = read_json(tmp_path / "final/state.json")
    assert state == {"task": "pretrain", "step": 8, "tokens": 8 * 128, "model": local_jobs.MODEL}
    assert read_json(tmp_path / "final/config.json") == hub_config(local_jobs.MODEL)
    told = read_json(tmp_path / "merged.json")
    assert told["steps"] == [4, 6, 8]
    last = Pretraining(local_jobs.job("pretrain", tmp_path, {"blend": blend}))
    load_weights(last.network, Path(sources[-1]))
    assert told["valid_loss"]["last"] == round(last.validate()["valid_loss"], 6)
    assert told["valid_loss"]["merged"] != told["valid_loss"]["last"]
    after = {"blend": blend, "init": str(tmp_path / "final")}
    job = local_jobs.job("pretrain", tmp_path / "next", after, init="merged", stop_iteration=1)
    assert pretrain(job) == 0


def test_one_checkpoint_is_its_own_mean(trained, tmp_path):
    merge.merge(local_jobs.job("merge", tmp_path, {"checkpoints": trained[0][:1], "blend": None}))
    assert read_json(tmp_path / "merged.json") == {"steps": [4]}
    one, same = (load_file(f"{f}/model.safetensors") for f in (trained[0][0], tmp_path / "final"))
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_time_steps_that_transformers_would_clamp_do_not_hurt_an_export(model):
    """Mamba's steps far below transformers' own bound: plain transformers still says the same."""
    weights = load_file(model / "model.safetensors")
    mixer = "backbone.layers.0.mixer"
    weights[f"{mixer}.dt_bias"] -= 9  # steps near 1e-4
    weights[f"{mixer}.in_proj.weight"] *= 30
    weights[f"{mixer}.D"] *= 0
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    network = build(local_jobs.MODEL, 0).eval()
    load_weights(network, model)
    tokens = conversion.parity.probe(local_jobs.VOCABULARY)
    found = []
    text = (model / "config.json").read_text()
    for bound in ("1e-09", "0.001"):
        (model / "config.json").write_text(
            text.replace('"time_step_min": 1e-09', f'"time_step_min": {bound}')
        )
        plain = conversion.AutoModelForCausalLM.from_pretrained(model).eval()
        with torch.no_grad():
            found.append(float((plain(tokens).logits - network(tokens).logits).abs().max()))
    assert found[0] < 1e-6 < 1e-3 < found[1]
