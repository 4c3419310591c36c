"""The released recipes: every file is valid and used, and the numbers are the reports'."""

import math
from collections import Counter
from pathlib import Path

import pytest

from nemoflow import graph
from nemoflow.config import Config
from nemoflow.config.data import KINDS
from nemoflow.schedule import learning_rate

FOLDER = Path(__file__).parents[2] / "config"
CONFIG = Config(FOLDER)
FILES = [(kind, name) for kind in KINDS for name in CONFIG.names(kind)]
RELEASED = ["super3", "nano3"]


@pytest.fixture(scope="module")
def super3():
    return CONFIG.run("super3")


@pytest.fixture(scope="module")
def nano3():
    return CONFIG.run("nano3")


def tokens(phase, iterations):
    """Tokens of `iterations` iterations."""
    return iterations * phase.batch.global_size * phase.batch.sequence


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_data_file_is_valid(kind, name):
    CONFIG.data(kind, name)


@pytest.mark.parametrize("name", CONFIG.run_names())
def test_run_is_valid(name):
    CONFIG.run(name)


def test_every_data_file_is_used():
    # That what is used exists is checked when a run is read.
    used = set()
    for run in map(CONFIG.run, CONFIG.run_names()):
        used.add(("tokenizers", run.pretrain.tokenizer))
        used.add(("mixtures", run.sft.mixture))
        used |= {("prompts", step.prompts) for step in run.rl.steps.values()}
        used |= {("blends", phase.blend) for phase in run.pretrain.phases.values()}
        used |= {("tasks", task) for task in [*run.eval.tasks, "base"]}
    used |= {
        ("corpora", corpus)
        for kind, name in list(used)
        if kind == "blends"
        for corpus in CONFIG.data(kind, name).weights
    }
    used |= {
        ("prompts", CONFIG.data(kind, name).prompts) for kind, name in list(used) if kind == "tasks"
    }
    assert set(FILES) - used == set()


@pytest.mark.parametrize(
    ("name", "count", "total"),
    [("phase1", 29, 80.4), ("phase2", 27, 82.9), ("long_context", 28, 103.6)],
)
def test_blends_of_super3_are_the_released_ones(name, count, total):
    blend = CONFIG.data("blends", f"super3-{name}")
    assert len(blend.weights) == count
    assert sum(blend.weights.values()) == pytest.approx(total)
    missing = {"phase1": 14.0 + 2.1 + 1.8 + 1.7}.get(name, 14.0 + 2.1 + 1.0)
    assert sum(gap.weight for gap in blend.gaps.values()) == pytest.approx(missing)


def test_long_context_is_phase2_and_a_fifth_of_questions():
    for run in RELEASED:
        weights = dict(CONFIG.data("blends", f"{run}-long_context").weights)
        questions = weights.pop("long-context-doc-qa")
        assert weights == CONFIG.data("blends", f"{run}-phase2").weights
        gap = CONFIG.data("blends", f"{run}-long_context").gaps.get("long-context-retrieval")
        total = questions + sum(weights.values()) + (gap.weight if gap else 0.0)
        assert questions / total == pytest.approx(0.20, abs=0.0005)


def test_blends_of_nano3_have_the_released_corpora_in_equal_shares():
    for phase in ("phase1", "phase2"):
        weights = CONFIG.data("blends", f"nano3-{phase}").weights
        assert len(weights) == 23
        assert set(weights.values()) == {1.0}


def test_corpora_are_cut_into_jobs_that_snakemake_can_plan():
    corpora = {
        corpus
        for run in RELEASED
        for phase in CONFIG.run(run).pretrain.phases.values()
        for corpus in CONFIG.data("blends", phase.blend).weights
    }
    assert len(corpora) == 30
    assert 600 <= sum(CONFIG.data("corpora", corpus).parts for corpus in corpora) <= 900


def test_mixtures_of_both_recipes_have_the_same_conversations():
    super3, nano3 = (CONFIG.data("mixtures", run) for run in RELEASED)
    assert list(super3.sources) == list(nano3.sources)
    assert len(super3.sources) == 12
    assert sum(s.weight for s in super3.sources.values()) == pytest.approx(58.3)
    assert sum(gap.weight for gap in super3.gaps.values()) == pytest.approx(47.5)
    for name, source in super3.sources.items():
        assert source.source == nano3.sources[name].source


@pytest.mark.parametrize("run", RELEASED)
def test_packs_fit_the_parallel_sizes(run):
    sft, mixture = CONFIG.run(run).sft, CONFIG.data("mixtures", run)
    context, tensor = sft.parallel.context, sft.parallel.tensor
    assert sft.parallel.sequence
    assert mixture.pad_multiple == math.lcm(2 * context, context * tensor)
    assert mixture.pack_size % mixture.pad_multiple == 0
    assert mixture.pack_size // (context * tensor) == 8192


def test_chain_of_super3(super3):
    assert graph.phases(super3) == ["phase1", "phase2", "long_context_1m", "long_context_mixed"]
    assert graph.steps(super3) == ["rlvr1", "rlvr2", "rlvr3", "swe1", "swe2", "rlhf"]


def test_chain_of_nano3(nano3):
    assert graph.phases(nano3) == ["phase1", "phase2", "long_context"]
    assert graph.steps(nano3) == ["rlvr", "rlhf"]
    assert graph.chain(nano3)[-1] == "rl.dpo"


@pytest.mark.parametrize(
    ("run", "phase", "published"),
    [
        ("super3", "phase1", 20e12),
        ("super3", "phase2", 25e12),
        ("super3", "long_context_1m", 34e9),
        ("super3", "long_context_mixed", 17e9),
        ("nano3", "phase1", 23.5e12),
        ("nano3", "phase2", 25e12),
        ("nano3", "long_context", 121e9),
    ],
)
def test_phase_ends_within_an_iteration_of_its_tokens(run, phase, published):
    phase = CONFIG.run(run).pretrain.phases[phase]
    assert abs(tokens(phase, phase.stop_iteration) - published) < tokens(phase, 1)


@pytest.mark.parametrize(("run", "warmup"), [("super3", 200e9), ("nano3", 8.4e9)])
def test_schedule_of_25t_tokens(run, warmup):
    phases = CONFIG.run(run).pretrain.phases
    schedule = phases["phase1"].schedule
    assert schedule == phases["phase2"].schedule
    assert schedule.end_iteration == phases["phase2"].stop_iteration == 993_411
    assert abs(tokens(phases["phase1"], schedule.decay_iterations) - 5e12) < 25_165_824
    assert abs(tokens(phases["phase1"], schedule.warmup_iterations) - warmup) < 2 * 25_165_824
    assert phases["phase1"].batch.global_size * phases["phase1"].batch.sequence == 25_165_824


def test_anneal_of_super3_begins_at_the_switch(super3):
    phases = super3.pretrain.phases
    switch, end = phases["phase1"].stop_iteration, phases["phase2"].stop_iteration
    assert (switch, end) == (794_729, 993_411)
    schedule = phases["phase2"].schedule.model_dump()
    assert end - schedule["decay_iterations"] == switch
    assert learning_rate(schedule, schedule["warmup_iterations"]) == 4.5e-4
    assert learning_rate(schedule, switch) == 4.5e-4
    assert learning_rate(schedule, switch + 1) < 4.5e-4
    assert learning_rate(schedule, end) == pytest.approx(4.5e-6)


@pytest.mark.parametrize("run", RELEASED)
def test_long_context_takes_weights_and_a_constant_rate(run):
    phases = CONFIG.run(run).pretrain.phases
    for name in graph.phases(CONFIG.run(run))[2:]:
        phase = phases[name]
        merged = CONFIG.run(run).pretrain.merge
        assert phase.init == ("merged" if merged and merged.phase == phase.after else "weights")
        assert (phase.schedule.style, phase.schedule.warmup_iterations) == ("constant", 0)
        assert phase.schedule.peak == phases["phase1"].schedule.floor
        assert phase.schedule.end_iteration == phase.stop_iteration
        assert phase.batch.sequence // (phase.parallel.context * phase.parallel.tensor) == 8192


@pytest.mark.parametrize(
    ("run", "letters"),
    [("super3", {"M": 40, "E": 40, "*": 8}), ("nano3", {"M": 23, "E": 23, "*": 6})],
)
def test_layers(run, letters):
    model = CONFIG.run(run).pretrain.model
    assert Counter(model.pattern) == letters
    assert model.layers == sum(letters.values())
    assert model.mamba.heads * model.mamba.head_dim % model.mamba.groups == 0


def parameters(model):
    """Weights of the backbone: embeddings, layers, output; no MTP head, no small vectors."""
    hidden, moe, mamba, attention = model.hidden_size, model.moe, model.mamba, model.attention
    inner, width = mamba.heads * mamba.head_dim, moe.latent or hidden
    experts = 2 * width * moe.ffn * moe.experts + hidden * moe.experts
    shared = 2 * hidden * moe.shared_ffn + (2 * hidden * moe.latent if moe.latent else 0)
    layer = {
        "M": hidden * (3 * inner + 2 * mamba.groups * mamba.state + mamba.heads),
        "E": experts + shared,
        "*": 2 * hidden * attention.head_dim * (attention.heads + attention.kv_heads),
    }
    return 2 * model.vocab_size * hidden + sum(layer[letter] for letter in model.pattern)


@pytest.mark.parametrize(("run", "published"), [("super3", 120.6e9), ("nano3", 31.6e9)])
def test_parameters(run, published):
    assert parameters(CONFIG.run(run).pretrain.model) == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize(
    ("run", "step", "rollouts", "sequence", "sizes", "rate", "kl"),
    [
        ("super3", "rlvr1", (256, 16), 65_536, (4, 8, 8), 3e-6, 0.0),
        ("super3", "rlvr2", (256, 16), 65_536, (4, 8, 8), 3e-6, 0.0),
        ("super3", "rlvr3", (256, 16), 65_536, (4, 8, 8), 3e-6, 0.0),
        ("super3", "swe1", (64, 16), 131_072, (8, 8, 8), 1e-6, 0.0),
        ("super3", "swe2", (16, 32), 196_608, (8, 8, 8), 1e-6, 0.0),
        ("super3", "rlhf", (128, 16), 49_152, (4, 4, 8), 1e-6, 1e-4),
        ("nano3", "rlvr", (128, 16), 49_152, (2, 4, 8), 3e-6, 0.0),
        ("nano3", "rlhf", (128, 16), 49_152, (2, 4, 8), 1e-6, 1e-4),
    ],
)
def test_rl_steps(run, step, rollouts, sequence, sizes, rate, kl):
    step = CONFIG.run(run).rl.steps[step]
    assert (step.prompts_per_step, step.generations_per_prompt) == rollouts
    assert step.max_sequence == step.generation.max_new_tokens == sequence
    assert (step.parallel.tensor, step.parallel.context, step.parallel.expert) == sizes
    assert (step.schedule.peak, step.kl, step.seed) == (rate, kl, 42)


def test_steps_of_rlvr_differ_in_their_prompts_alone(super3):
    first, *rest = (
        super3.rl.steps[name].model_dump(exclude={"prompts", "after"})
        for name in ("rlvr1", "rlvr2", "rlvr3")
    )
    assert all(step == first for step in rest)
    assert len(first["environments"]) == 23


@pytest.mark.parametrize("run", RELEASED)
def test_judges_are_asked_by_environments_of_their_step(run):
    for step in CONFIG.run(run).rl.steps.values():
        assert len(set(step.environments)) == len(step.environments)
        for judge in step.judges.values():
            assert set(judge.used_by) <= set(step.environments)


def test_dpo_of_nano3(nano3):
    dpo = nano3.rl.steps["dpo"]
    assert (dpo.branch, dpo.after, dpo.algorithm) == (True, "rlhf", "dpo")
    assert (dpo.iterations, dpo.prompts_per_step, dpo.schedule.peak) == (50, 128, 3e-6)


def test_fine_tuning(super3, nano3):
    assert abs(tokens(super3.sft, super3.sft.iterations) - 80e9) < tokens(super3.sft, 1)
    assert (super3.sft.schedule.style, super3.sft.schedule.peak) == ("constant", 1e-5)
    assert (nano3.sft.iterations, nano3.sft.schedule.warmup_iterations) == (13_000, 800)
    for sft in (super3.sft, nano3.sft):
        assert (sft.batch.global_size, sft.batch.sequence) == (64, 2**18)


@pytest.mark.parametrize("run", RELEASED)
def test_every_evaluated_task_has_a_published_score(run):
    scores = CONFIG.run(run).eval
    assert list(scores.published["pretrain"]) == scores.tasks == CONFIG.data("tasks", "base").suite
    assert all(0 < score.value < 1 for score in scores.published["pretrain"].values())


def test_what_nobody_has_published_is_named(super3, nano3):
    assert {
        "checkpoint-merging",
        "long-context-mix",
        "two-stage-sft-loss",
        "budget-sft",
        "mtp-healing",
    } <= set(super3.gaps)
    assert {"pretraining-weights", "long-context-mix", "rlhf", "dpo-pairs"} <= set(nano3.gaps)


def test_hub_sources_say_a_revision():
    for kind, name in FILES:
        model = CONFIG.data(kind, name)
        sources = {
            "corpora": lambda m: [m.source],
            "mixtures": lambda m: [entry.source for entry in m.sources.values()],
            "prompts": lambda m: [*m.sources, *(m.validation or [])],
            "tokenizers": lambda m: [m],
        }.get(kind, lambda m: [])(model)
        assert all(source.revision for source in sources if source.hub), (kind, name)
