"""Costs against what is published of the models, and against hand counts."""

from pathlib import Path

import pytest

from nemoflow import cost
from nemoflow.config.training import Options, Parallel
from nemoflow.machine import Machine
from nemoflow.profile import Profile

PROFILES = Path(__file__).parents[2] / "profiles"


def model_of(config, name):
    return config.run(name).pretrain.model


@pytest.mark.parametrize(
    ("name", "total", "active", "without_embedding"),
    [("super3", 120.6e9, 12.7e9, 12.1e9), ("nano3", 31.6e9, 3.6e9, 3.2e9)],
)
def test_parameters_are_the_reports(config, name, total, active, without_embedding):
    found = cost.parameters(model_of(config, name))
    assert found.total == pytest.approx(total, rel=0.01)
    assert found.active == pytest.approx(active, rel=0.01)
    assert found.active - found.embedding == pytest.approx(without_embedding, rel=0.015)


@pytest.mark.parametrize(
    ("name", "per_token"),
    # Megatron-Bridge, docs/performance-summary.md: TFLOP/s over tokens per second, sequences of 8K
    [("super3", 610e12 / 7168), ("nano3", 901e12 / 39936)],
)
def test_flops_per_token_are_those_behind_published_throughputs(config, name, per_token):
    assert 3 * cost.forward(model_of(config, name), 8192, True) == pytest.approx(per_token, rel=0.1)


@pytest.mark.parametrize(("name", "active"), [("super3", 12.7e9), ("nano3", 3.2e9)])
def test_without_head_and_attention_six_flops_per_active_parameter(config, name, active):
    assert 3 * cost.forward(model_of(config, name), 1, False) == pytest.approx(6 * active, rel=0.05)


def test_attention_grows_with_the_sequence(config):
    model = model_of(config, "nano3")
    more = cost.forward(model, 2000, False) - cost.forward(model, 1000, False)
    assert more == 6 * 2 * 1000 * 32 * 128  # layers × (scores and values) × half of 2 × … × heads


def test_a_checkpoint_is_fourteen_bytes_per_parameter_of_its_head_too(config):
    model = model_of(config, "super3")
    counted = cost.parameters(model)
    assert counted.mtp == pytest.approx(2.94e9, rel=0.01)
    assert cost.stored(model) == 14 * (counted.total + counted.mtp)
    assert cost.stored(model, mtp=False) == 14 * counted.total


def test_memory_falls_with_experts_cut_finer_and_with_replicas(config):
    model = model_of(config, "super3")
    coarse, fine = (Parallel(tensor=4, expert=size, sequence=True) for size in (8, 64))
    assert cost.memory(model, coarse, 32, 4) == pytest.approx(145e9, rel=0.01)
    assert cost.memory(model, fine, 64, 4) < cost.memory(model, coarse, 64, 4)
    assert cost.memory(model, coarse, 768, 4) < cost.memory(model, coarse, 32, 4)
    assert cost.memory(model, coarse, 32, 4, trained=False) == pytest.approx(
        2 * cost.memory(model, coarse, 10**9, 0) / 2
    )


def test_hours_are_flops_over_what_the_gpus_do(config):
    hardware, run = Profile(PROFILES / "b200").hardware, config.run("super3")
    model = run.pretrain.model
    one, two = (
        cost.training(model, "pretrain", "nvfp4", 10**12, 8192, Machine(n, 8), (1, 2), hardware)
        for n in (48, 96)
    )
    done = one.gpu_hours * 3600 * 9000e12 * hardware.utilisation.pretrain["nvfp4"]
    assert done == pytest.approx(10**12 * 3 * cost.forward(model, 8192, True))
    assert two.gpu_hours == pytest.approx(one.gpu_hours)
    assert two.hours == pytest.approx(one.hours / 2)
    assert cost.training(model, "sft", "fp32", 1, 1, Machine(1, 8), (1, 2), hardware).hours is None


@pytest.mark.parametrize(
    ("keys", "stay", "most"),
    [
        ({}, 1, 3),  # two that are kept, and one under way
        ({"milestones": 400}, 3, 5),  # 400 and 800 beside 1000, and 900
        ({"window": {"iterations": 500, "every": 100}}, 5, 6),  # 600 to 900 and 1000
    ],
)
def test_disk_holds_what_the_rules_keep(keys, stay, most):
    options = Options.model_validate({"save_every": 100, "keep": 2, **keys})
    assert cost.disk(10, options, 0, 1000) == (10 * stay, 10 * most)
    assert cost.disk(10, Options(save_every=100), 950, 1000) == (10, 20)


def test_rollouts_beside_training_cost_the_longer_of_both(config):
    hardware, run = Profile(PROFILES / "b200").hardware, config.run("super3")
    model, step = run.pretrain.model, run.rl.steps["rlvr1"]

    def taken(**machine):
        return cost.rollouts(
            model, step, "bf16", 2560, 10_000, Machine(gpus=8, **machine), hardware, True
        )

    beside, apart = taken(nodes=104, generate_nodes=72), taken(nodes=32)
    assert beside.tokens == apart.tokens == 10 * 256 * 16 * 10_000
    more = taken(nodes=32 + 720, generate_nodes=720)
    assert more.hours < beside.hours < apart.hours
    assert more.hours == pytest.approx(taken(nodes=32 + 7200, generate_nodes=7200).hours)
