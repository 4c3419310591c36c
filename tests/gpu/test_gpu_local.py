"""The local engine on a GPU: it learns, agrees with the CPU, and either continues the other."""

import os
import signal

import pytest
import torch

import local_jobs
import small_tokenizer
from local_jobs import MODEL, TASKS, run_task
from nemoflow import checkpoint, metrics
from nemoflow.engines.local.model import build
from nemoflow.engines.local.pretrain import Pretraining
from nemoflow.engines.local.rewards import REWARDS
from nemoflow.engines.local.rollout import logprobs_of, sample
from nemoflow.engines.local.weights import load_weights
from nemoflow.launch import INTERRUPTED


@pytest.fixture
def device(kernels, monkeypatch):
    """The engine's device, as NEMOFLOW_DEVICE names it."""
    name = "cuda" if kernels == "cuda" else "cpu"
    monkeypatch.setenv("NEMOFLOW_DEVICE", name)
    monkeypatch.setitem(REWARDS, "boxed_math", lambda row, text: float(len(text) % 2 == 0))
    return name


@pytest.fixture
def on(monkeypatch):
    """Choose the device of what comes next."""
    return lambda name: monkeypatch.setenv("NEMOFLOW_DEVICE", name)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "tokenizer").mkdir()
    small_tokenizer.make(folder / "tokenizer")
    return local_jobs.inputs(folder, folder / "tokenizer")


@pytest.fixture
def tokens():
    return torch.randint(0, local_jobs.VOCABULARY, (3, 41), generator=torch.manual_seed(0))


def test_pretraining_learns_and_its_logits_are_the_cpus(device, on, inputs, tokens, tmp_path):
    schedule = local_jobs.SCHEDULE | {"end_iteration": 60}
    run_task("pretrain", tmp_path, inputs, stop_iteration=60, schedule=schedule)
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"] - 1
    assert lines[-1]["mtp_loss"] < lines[0]["mtp_loss"]
    found = {}
    for name in (device, "cpu"):
        on(name)
        network = build(MODEL, seed=0).eval()
        load_weights(network, checkpoint.final(tmp_path))
        assert network.device.type == name
        with torch.no_grad():
            hidden = network.model(tokens.to(name), use_cache=False).last_hidden_state
            ahead = next(network.mtp(network.model.embeddings(tokens.to(name)), hidden))
            found[name] = [network.lm_head(part).cpu() for part in (hidden, ahead)]
    for ours, expected in zip(found[device], found["cpu"], strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)


def test_weights_are_drawn_on_the_cpu(device, on):
    there = build(MODEL, seed=3).state_dict()
    on("cpu")
    here = build(MODEL, seed=3).state_dict()
    assert all(torch.equal(tensor.cpu(), here[name]) for name, tensor in there.items())


@pytest.mark.parametrize("task", list(TASKS))
def test_a_device_repeats_itself(task, device, inputs, tmp_path):
    for name in ("one", "two"):
        assert run_task(task, tmp_path / name, inputs) == 0
        (tmp_path / name / "metrics.jsonl").unlink()
    assert local_jobs.digests(tmp_path / "one") == local_jobs.digests(tmp_path / "two")


@pytest.mark.parametrize("order", ["there first", "here first"])
def test_each_device_goes_on_where_the_other_was(order, device, on, inputs, tmp_path, monkeypatch):
    names = [device, "cpu"] if order == "there first" else ["cpu", device]
    assert run_task("pretrain", tmp_path / "whole", inputs) == 0
    real = Pretraining.train_step

    def train_step(self, number, rate):
        if number + 1 == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, number, rate)

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "train_step", train_step)
        on(names[0])
        assert run_task("pretrain", tmp_path / "cut", inputs) == INTERRUPTED
    on(names[1])
    assert run_task("pretrain", tmp_path / "cut", inputs) == 0
    whole, cut = (metrics.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut"))
    assert [line["step"] for line in cut] == [line["step"] for line in whole]
    for ours, expected in zip(cut, whole, strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-2)


def test_rollouts_have_the_cpus_log_probabilities(device, on):
    model = MODEL | {"init_std": 0.2}
    prompts = torch.randint(3, local_jobs.VOCABULARY, (4, 9), generator=torch.manual_seed(3))
    attention = torch.ones_like(prompts)
    attention[0, :4] = 0
    generator = torch.Generator().manual_seed(3)
    drawn = sample(build(model, 0).eval(), prompts, attention, 3, 12, 0.7, 5, generator)
    on("cpu")
    here = type(drawn)(*(tensor.cpu() for tensor in drawn))
    with torch.no_grad():
        expected = logprobs_of(build(model, 0).eval(), here, 0.7)
    counted = here.counted
    torch.testing.assert_close(here.logprobs[counted], expected[counted], atol=1e-3, rtol=1e-3)
