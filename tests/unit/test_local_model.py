"""The local engine's model: MTP, balance, the hub's layout, what transformers reads back."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, NemotronHForCausalLM

import local_jobs
from nemoflow.engines.local import loop
from nemoflow.engines.local.export import export
from nemoflow.engines.local.model import ExpertBalance, build, losses, unclamp_time_steps
from nemoflow.engines.local.pretrain import Pretraining, pretrain
from nemoflow.engines.local.rollout import logprobs_of, sample
from nemoflow.engines.local.weights import load_weights, save_weights, to_hub
from nemoflow.errors import UserError
from nemoflow.hub import hub_config

MODEL = local_jobs.MODEL
NANO = MODEL | {"mtp": None, "moe": MODEL["moe"] | {"latent": None}}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, local_jobs.VOCABULARY, (3, 41), generator=generator)


def changed(model, **values):
    """A copy of a model section with dotted keys set."""
    model = copy.deepcopy(model)
    for dotted, value in values.items():
        *path, key = dotted.split("__")
        section = model
        for name in path:
            section = section[name]
        section[key] = value
    return model


def test_weights_follow_from_the_seed_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    one, same, other = (build(MODEL, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("model", [MODEL, NANO], ids=["super", "nano"])
def test_hub_layout_is_what_transformers_reads_and_writes(model, tokens, tmp_path):
    network = build(model, 0).eval()
    weights = to_hub(network.state_dict())
    save_weights(weights, hub_config(model), tmp_path)
    read = NemotronHForCausalLM.from_pretrained(tmp_path).eval()
    unclamp_time_steps(read)
    with torch.no_grad():
        torch.testing.assert_close(read(tokens).logits, network(tokens).logits)
    read.save_pretrained(tmp_path / "theirs")
    theirs = load_file(tmp_path / "theirs/model.safetensors")
    assert set(theirs) == {name for name in weights if not name.startswith("mtp.")}
    again = build(model, 1)
    load_weights(again, tmp_path)
    assert all(torch.equal(again.state_dict()[n], t) for n, t in network.state_dict().items())


def test_mtp_weights_have_the_hubs_names():
    names = set(to_hub(build(MODEL, 0).state_dict()))
    assert {
        "mtp.layers.0.enorm.weight",
        "mtp.layers.0.hnorm.weight",
        "mtp.layers.0.eh_proj.weight",
        "mtp.layers.0.mixer.q_proj.weight",
        "mtp.layers.1.mixer.experts.3.up_proj.weight",
        "mtp.layers.1.mixer.gate.e_score_correction_bias",
        "mtp.layers.1.final_layernorm.weight",
        "backbone.layers.2.mixer.gate.e_score_correction_bias",
    } <= names
    assert not any("mtp" in name for name in to_hub(build(NANO, 0).state_dict()))


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"moe__aux_loss": 1e-4}, "model.moe.aux_loss"),
        ({"layers": 5}, "model.layers"),
        ({"pattern": "MXE"}, "model.pattern"),
        ({"mtp__pattern": "*Q"}, "model.mtp.pattern"),
        ({"pattern": "M-E"}, "model.ffn"),
    ],
)
def test_a_model_that_cannot_be_built_is_a_user_error(wrong, key):
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        build(changed(MODEL, **wrong), 0)


def test_weights_of_another_model_are_a_user_error(tmp_path):
    save_weights(to_hub(build(MODEL, 0).state_dict()), hub_config(MODEL), tmp_path)
    with pytest.raises(UserError, match=r"weights do not fit .* mtp\."):
        load_weights(build(changed(MODEL, mtp=None), 0), tmp_path)


def test_masked_losses_are_those_of_plain_cross_entropy(tokens):
    network = build(changed(MODEL, mtp__depths=2), 0)
    mask = torch.rand(3, 40, generator=torch.Generator().manual_seed(1)) < 0.5
    with torch.no_grad():
        sums = losses(network, tokens, mask, mtp=True)
        logits = network(tokens[:, :-1], use_cache=False).logits
    picked = logits.log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)
    torch.testing.assert_close(sums.main, -(picked * mask).sum())
    assert sums.main_tokens == int(mask.sum())
    assert sums.mtp_tokens == int(mask[:, 1:].sum() + mask[:, 2:].sum())
    assert float(sums.mtp) / sums.mtp_tokens == pytest.approx(
        math.log(local_jobs.VOCABULARY), rel=0.1
    )


def test_mtp_sees_one_token_more_and_no_further(tokens):
    """Depth 1 at position i may know tokens up to i + 1, and predicts i + 2."""
    network = build(MODEL, 0)
    changed_tokens = tokens[:1, :-1].clone()
    changed_tokens[0, 20] = (changed_tokens[0, 20] + 1) % local_jobs.VOCABULARY
    found = []
    with torch.no_grad():
        for ids in (tokens[:1, :-1], changed_tokens):
            hidden = network.model(ids, use_cache=False).last_hidden_state
            found += network.mtp(network.model.embeddings(ids), hidden)
    same = torch.isclose(found[0], found[1], atol=1e-6).all(-1)[0]
    assert same[:19].all() and not same[19]


def test_right_padding_does_not_change_the_loss(tokens):
    network = build(MODEL, 0)
    mask = torch.ones(3, 40, dtype=torch.bool)
    padded = torch.cat([tokens, torch.zeros(3, 7, dtype=torch.int64)], 1)
    padded_mask = torch.cat([mask, torch.zeros(3, 7, dtype=torch.bool)], 1)
    with torch.no_grad():
        plain, longer = (
            losses(network, *pair, mtp=True) for pair in ((tokens, mask), (padded, padded_mask))
        )
    torch.testing.assert_close(plain.main, longer.main)
    torch.testing.assert_close(plain.mtp, longer.mtp)
    assert plain.mtp_tokens == longer.mtp_tokens


def test_balancing_evens_the_load():
    """A router that sends nearly everything to two experts ends up using all four alike."""
    network = build(NANO, 0).train()
    router = network.model.layers[2].mixer.gate
    with torch.no_grad():
        router.weight[:2] += 0.3
    inputs = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0)) + 0.2

    def imbalance():
        counts = torch.bincount(router(inputs)[2].flatten(), minlength=4).float()
        return float(counts.max() / counts.mean())

    before = imbalance()
    balance = ExpertBalance(network, 0.02)
    for _ in range(60):
        router(inputs)
        balance.update()
    assert before > 1.5
    assert imbalance() < 1.2


def test_balancing_happens_in_pretraining_and_is_saved(tmp_path):
    job = local_jobs.job("pretrain", tmp_path / "p", {"blend": local_jobs.blend(tmp_path)})
    assert pretrain(job) == 0
    weights = load_file(tmp_path / "p/step_0000014/model.safetensors")
    bias = weights["backbone.layers.2.mixer.gate.e_score_correction_bias"]
    assert bias.abs().max() > 0
    steps = bias / MODEL["moe"]["bias_update_rate"]
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)


def test_validation_does_not_count_for_the_balance(tmp_path):
    job = local_jobs.job("pretrain", tmp_path / "p", {"blend": local_jobs.blend(tmp_path)})
    trainer = Pretraining(job)
    trainer.network.train()
    found = trainer.validate()
    assert not trainer.balance.counts
    assert set(found) == {"valid_loss", "valid_loss/news", "valid_loss/code"}
    mean = (found["valid_loss/news"] + found["valid_loss/code"]) / 2
    assert found["valid_loss"] == pytest.approx(mean)


@pytest.mark.parametrize("model", [MODEL, NANO], ids=["super", "nano"])
def test_cached_sampling_from_left_padding_agrees_with_a_full_pass(model):
    """What rollouts record as log-probabilities is what the policy gives the same tokens."""
    network = build(changed(model, init_std=0.2), 0).eval()
    generator = torch.Generator().manual_seed(3)
    prompts = torch.randint(3, local_jobs.VOCABULARY, (4, 9), generator=generator)
    attention = torch.ones_like(prompts)
    attention[0, :4] = attention[2, :2] = 0
    rollouts = sample(network, prompts, attention, 3, 12, 0.7, 5, generator)
    assert rollouts.tokens.shape == (12, 9 + rollouts.counted.shape[1])
    with torch.no_grad():
        again = logprobs_of(network, rollouts, 0.7)
        alone = logprobs_of(network, type(rollouts)(*(t[:3] for t in rollouts)), 0.7)
        unpadded = logprobs_of(
            network,
            rollouts._replace(
                tokens=rollouts.tokens[:3, 4:],
                attention=rollouts.attention[:3, 4:],
                counted=rollouts.counted[:3],
            ),
            0.7,
        )
    counted = rollouts.counted
    torch.testing.assert_close(again[counted], rollouts.logprobs[counted], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone[counted[:3]], unpadded[counted[:3]], atol=1e-4, rtol=1e-4)


def test_weights_in_shards_are_loaded_and_other_folders_refused(tmp_path):
    named = to_hub(build(MODEL, 0).state_dict())
    half = {name: name < "backbone.layers.1" for name in named}
    for file, wanted in (("a.safetensors", True), ("b.safetensors", False)):
        save_file({n: t for n, t in named.items() if half[n] is wanted}, tmp_path / file)
    network = build(MODEL, 1)
    with pytest.raises(UserError, match="no model.safetensors: the local engine reads Hugging"):
        load_weights(network, tmp_path)
    places = {n: "a.safetensors" if half[n] else "b.safetensors" for n in named}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    load_weights(network, tmp_path)
    assert all(torch.equal(t, named[n]) for n, t in to_hub(network.state_dict()).items())


@pytest.fixture
def checkpoint_folder(tmp_path):
    job = local_jobs.job(
        "pretrain", tmp_path / "p", {"blend": local_jobs.blend(tmp_path)}, stop_iteration=3
    )
    pretrain(job)
    return tmp_path / "p/step_0000003"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_loads_in_transformers_with_the_same_logits(
    dtype, checkpoint_folder, tiny_tokenizer, tokens, tmp_path
):
    inputs = {"checkpoint": str(checkpoint_folder), "tokenizer": str(tiny_tokenizer)}
    assert export(local_jobs.job("export", tmp_path / "e", inputs, dtype=dtype)) == 0
    folder = tmp_path / "e/final"
    read = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert read.dtype == getattr(torch, dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert read.config.eos_token_id == tokenizer.eos_token_id
    assert "<|im_start|>user" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False
    )
    network = build(MODEL, 0).eval()
    load_weights(network, checkpoint_folder)
    tolerance = {} if dtype == "float32" else {"atol": 0.1, "rtol": 0.1}
    with torch.no_grad():
        torch.testing.assert_close(read(tokens).logits.float(), network(tokens).logits, **tolerance)
    assert any(name.startswith("mtp.layers.1") for name in load_file(folder / "model.safetensors"))
    assert loop.read_json(tmp_path / "e/parity.json")["verdict"] == "passed"


def test_export_with_a_larger_tokenizer_is_refused(checkpoint_folder, tiny_tokenizer, tmp_path):
    inputs = {"checkpoint": str(checkpoint_folder), "tokenizer": str(tiny_tokenizer)}
    with pytest.raises(UserError, match=r"model\.vocab_size is 100"):
        export(
            local_jobs.job("export", tmp_path / "e", inputs, model=changed(MODEL, vocab_size=100))
        )


def test_a_checkpoint_holds_no_path_and_no_time(checkpoint_folder):
    assert {path.name for path in checkpoint_folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    text = "".join(path.read_text() for path in checkpoint_folder.glob("*.json"))
    assert str(Path(checkpoint_folder).parent) not in text
    assert loop.read_json(checkpoint_folder / "state.json")["step"] == 3
