"""LoRA in the local engine: where adapters sit, what a checkpoint holds, resuming, merging."""

import random
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import local_jobs
from nemoflow import checkpoint
from nemoflow.engines.local import adapters
from nemoflow.engines.local.export import export
from nemoflow.engines.local.model import build
from nemoflow.engines.local.sft import FineTuning, sft
from nemoflow.engines.local.weights import load_weights
from nemoflow.errors import UserError
from nemoflow.files import read_json

pytestmark = pytest.mark.usefixtures("one_thread")

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": list(adapters.PROJECTIONS)}
DENSE = local_jobs.MODEL | {"pattern": "M*E-", "layers": 4, "ffn": 48}
TOKENS = torch.randint(
    0, local_jobs.VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(0)
)


def adapted(model=DENSE, seed=0, **changed):
    """A model with adapters."""
    network = build(model, 0).eval()
    return network, adapters.insert(network, LORA | changed, seed)


def logits(network):
    with torch.no_grad():
        return network(TOKENS).logits


@pytest.fixture(scope="module")
def tuned(inputs, tmp_path_factory):
    """The progress of a finished fine-tuning of adapters."""
    progress = tmp_path_factory.mktemp("tuned")
    schedule = local_jobs.SCHEDULE | {"peak": 3e-2}
    assert sft(local_jobs.job("sft", progress, inputs["sft"], lora=LORA, schedule=schedule)) == 0
    return progress


@pytest.mark.parametrize(
    ("targets", "projections"),
    [
        (["linear_qkv"], {"1.mixer.q_proj", "1.mixer.k_proj", "1.mixer.v_proj"}),
        (["linear_proj", "in_proj"], {"1.mixer.o_proj", "0.mixer.in_proj"}),
        (["out_proj"], {"0.mixer.out_proj"}),
        (["linear_fc1"], {"2.mixer.shared_experts.up_proj", "2.mixer.experts", "3.mixer.up_proj"}),
    ],
)  # fmt: skip
def test_adapters_sit_where_megatrons_targets_say_and_nowhere_else(targets, projections):
    network, _ = adapted(targets=targets)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    found = {name.partition(".lora_")[0].removeprefix("model.layers.") for name in trained}
    assert found == projections
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)


def test_every_expert_has_an_adapter_of_its_own():
    network, _ = adapted(targets=["linear_fc1"])
    shapes = {name: tuple(weight.shape) for name, weight in adapters.named(network).items()}
    stem = "base_model.model.model.layers.2.mixer.experts"
    experts, moe = local_jobs.MODEL["moe"]["experts"], local_jobs.MODEL["moe"]
    assert shapes[f"{stem}.lora_A.weight"] == (4 * experts, moe["latent"])
    assert shapes[f"{stem}.lora_B.weight"] == (moe["ffn"], 4 * experts)


def test_fresh_adapters_change_nothing_and_follow_from_the_seed():
    before = torch.get_rng_state()
    (one, _), (same, _), (other, _) = (adapted(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.allclose(logits(one), logits(build(DENSE, 0).eval()), atol=1e-6)
    first = [next(iter(adapters.named(network).values())) for network in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_a_checkpoint_holds_adapters_alone(tuned):
    last = checkpoint.final(tuned)
    assert {path.name for path in last.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    weights = load_file(last / "adapter_model.safetensors")
    assert all(".lora_" in name and "mtp" not in name for name in weights)
    assert any(weights[name].abs().max() > 0 for name in weights if ".lora_B." in name)
    assert {n.partition("/")[2] for n in load_file(last / "optimizer.safetensors")} == {
        name.removeprefix(adapters.PREFIX).replace(".weight", ".default.weight") for name in weights
    }
    assert str(tuned) not in (last / "adapter_config.json").read_text()


def test_the_share_that_is_trained_is_said(tmp_path, inputs, capsys):
    lora = LORA | {"rank": 1, "targets": ["linear_proj"]}
    FineTuning(local_jobs.job("sft", tmp_path, inputs["sft"], lora=lora))
    total = sum(p.numel() for p in build(local_jobs.MODEL, 0).parameters()) + 64
    said = f"micro.sft: LoRA: 64 of {total:,} parameters are trained ({64 / total:.1%}); the MTP"
    assert said in capsys.readouterr().err


def killed_at(progress, given, step):
    """Fine-tune adapters in a process that dies right after the update that finishes `step`."""
    real = FineTuning.train_step

    def train_step(self, number, rate):
        found = real(self, number, rate)
        if number + 1 == step:
            local_jobs.kill_self()
        return found

    FineTuning.train_step = train_step
    sft(local_jobs.job("sft", progress, given, lora=LORA, iterations=8))


def test_a_killed_job_ends_in_the_same_bytes(inputs, tmp_path):
    step = random.randrange(4, 8)
    assert local_jobs.in_process(killed_at, tmp_path / "killed", inputs["sft"], step) == -9
    for name in ("whole", "killed"):
        job = local_jobs.job("sft", tmp_path / name, inputs["sft"], lora=LORA, iterations=8)
        assert sft(job) == 0
    last = [checkpoint.final(tmp_path / name) for name in ("whole", "killed")]
    assert local_jobs.digests(last[0]) == local_jobs.digests(last[1]), f"killed after {step}"


@pytest.fixture(scope="module")
def exported(tuned, inputs, tiny_tokenizer, tmp_path_factory):
    """The progress of the export of base and adapters in one."""
    progress = tmp_path_factory.mktemp("exported")
    given = {
        "checkpoint": str(checkpoint.final(tuned)),
        "base": inputs["sft"]["init"],
        "tokenizer": str(tiny_tokenizer),
    }
    assert export(local_jobs.job("export", progress, given, lora=LORA)) == 0
    return progress


def test_the_export_answers_as_base_and_adapters_do(tuned, inputs, exported):
    found = read_json(exported / "parity.json")
    assert found["verdict"] == "passed" and found["values"] == "equal"
    assert found["adapters"]["max_difference"] <= 1e-5 == found["adapters"]["allowed"]
    base = build(local_jobs.MODEL, 0).eval()
    load_weights(base, Path(inputs["sft"]["init"]))
    before = logits(base)
    adapters.insert(base, LORA, 5)
    adapters.load(base, checkpoint.final(tuned))
    plain = AutoModelForCausalLM.from_pretrained(exported / "final").eval()
    torch.testing.assert_close(logits(plain), logits(base), atol=1e-5, rtol=0)
    assert (logits(plain) - before).abs().max() > 0.01  # the adapters do something


def test_only_targeted_weights_are_changed_by_merging(inputs, exported):
    before = load_file(Path(inputs["sft"]["init"]) / "model.safetensors")
    after = load_file(exported / "final/model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    kinds = {name.removesuffix(".weight").rpartition(".")[2] for name in changed}
    assert kinds == {name for names in adapters.PROJECTIONS.values() for name in names}
    assert not any(name.startswith("mtp.") for name in changed)


def test_peft_itself_puts_the_adapters_on_the_exported_base(inputs, tmp_path):
    """But for Mamba's out_proj, which it refuses for every NemotronH."""
    lora = LORA | {"targets": [t for t in LORA["targets"] if t != "out_proj"]}
    assert sft(local_jobs.job("sft", tmp_path, inputs["sft"], lora=lora, iterations=6)) == 0
    folder = checkpoint.final(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(inputs["rl"]["init"]).eval()
    theirs = PeftModel.from_pretrained(base, folder).eval()
    ours = build(local_jobs.MODEL, 0).eval()
    load_weights(ours, Path(inputs["sft"]["init"]))
    adapters.insert(ours, lora, 0)
    adapters.load(ours, folder)
    torch.testing.assert_close(logits(theirs), logits(ours), atol=1e-5, rtol=0)


def test_users_mistakes_are_told(tuned, inputs, tmp_path):
    folder = str(checkpoint.final(tuned))
    plain = local_jobs.MODEL | {"pattern": "*E*"}
    for changed, given, message in (
        ({"lora": LORA | {"dropout": 0.1}}, {}, "sft.lora.dropout: 0.1"),
        ({}, {"init": folder}, "adapters without their model"),
    ):
        with pytest.raises(UserError, match=message):
            sft(local_jobs.job("sft", tmp_path, inputs["sft"] | given, **changed))
    with pytest.raises(UserError, match=r"sft.lora.targets: \['in_proj'\]: the model has no such"):
        adapted(plain, targets=["in_proj"])
    other, _ = adapted(local_jobs.MODEL, rank=2)
    with pytest.raises(UserError, match="adapters do not fit sft.lora"):
        adapters.load(other, Path(folder))
    with pytest.raises(UserError, match="no adapters"):
        adapters.load(other, Path(inputs["sft"]["init"]))
