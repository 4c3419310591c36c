"""Config mistakes: each stopped before any job, politely, with place, key and advice, at once."""

# ruff: noqa: E501  (a table reads better whole)

import sys
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest

from workflow.checkout import TARGET, Checkout

MICRO = "config/micro.yaml"
SFT = "schedule: {warmup_iterations: 2, end_iteration: 12}"

# file, text before, text after → what the message says
MISTAKES = {
    "unknown key": (MICRO, "iterations: 12\n", "iterations: 12\n  lerning_rate: 1\n",
        ["config/micro.yaml:", "sft.lerning_rate", "is not a setting"]),
    "misspelt key": (MICRO, "mixture: micro", "mixtur: micro",
        ["config/micro.yaml:", "sft.mixtur", "did you mean sft.mixture?"]),
    "duplicate key": (MICRO, "iterations: 12\n", "iterations: 12\n  iterations: 13\n",
        ["config/micro.yaml:", "sft.iterations is set twice", "keep one"]),
    "wrong type": (MICRO, "iterations: 12\n", "iterations: twelve\n",
        ["config/micro.yaml:", "sft.iterations", "must be a whole number, not 'twelve'"]),
    "number as text": (MICRO, "iterations: 12\n", 'iterations: "12"\n',
        ["config/micro.yaml:", "sft.iterations", "must be a whole number, not '12'"]),
    "missing value": (MICRO, "iterations: 12\n", "iterations:\n",
        ["config/micro.yaml:", "sft.iterations", "whole number, not None"]),
    "no YAML": (MICRO, "iterations: 12\n", "iterations: [12\n",
        ["config/micro.yaml:", "not readable as YAML"]),
    "negative": (MICRO, SFT, SFT.replace("{", "{peak: -1e-3, "),
        ["config/micro.yaml:", "sft.schedule.peak", "greater than or equal to 0"]),
    "unknown parent": (MICRO, "extends: super3-tiny", "extends: super3-tyni",
        ["config/micro.yaml:", "there is no run super3-tyni", "did you mean super3-tiny?"]),
    "extends itself": (MICRO, "extends: super3-tiny", "extends: micro",
        ["config/micro.yaml:", "micro extends micro: a circle"]),
    "phase after nothing": (MICRO, "{blend: micro-phase2,", "{after: phase0, blend: micro-phase2,",
        ["config/micro.yaml:", "pretrain.phases.phase2.after", "no phase0", "phase1"]),
    "phases in a circle": (MICRO, "{blend: micro-phase1,",
        "{after: phase2, init: weights, blend: micro-phase1,",
        ["config/micro.yaml:", "pretrain.phases.phase1.after", "circle"]),
    "two first steps": (MICRO, "rlvr2: {", "rlvr2: {after: null, ",
        ["config/micro.yaml:", "rl.steps.rlvr2.after", "must form one line"]),
    "batch not divisible": (MICRO, "batch: {global: 4, micro: 4, sequence: 64}\n  validate: {every: 12",
        "batch: {global: 6, micro: 4, sequence: 64}\n  validate: {every: 12",
        ["config/micro.yaml:", "pretrain.phases.phase1.batch", "micro (4) does not divide global (6)"]),
    "pattern and layers differ": (MICRO, "layers: 4", "layers: 5",
        ["config/micro.yaml:", "pretrain.model", "layers is 5 but the pattern has 4 letters"]),
    "experts not divisible": (MICRO, "validate: {every: 12", "parallel: {expert: 3}\n  validate: {every: 12",
        ["config/micro.yaml:", "pretrain.phases.phase1.parallel.expert", "3 does not divide the 4 experts"]),
    "heads not divisible": (MICRO, "validate: {every: 6", "parallel: {tensor: 4}\n  validate: {every: 6",
        ["config/micro.yaml:", "sft.parallel.tensor", "4 does not divide the 2 query heads"]),
    "vocabulary too large": ("config/tokenizers/micro.yaml", "vocab_size: 320",
        "vocab_size: 70000\ndtype: uint16",
        ["config/tokenizers/micro.yaml:1", "too large for dtype uint16", "dtype: int32"]),
    "more ids than rows": ("config/tokenizers/micro.yaml", "vocab_size: 320", "vocab_size: 330",
        ["config/micro.yaml:", "pretrain.model.vocab_size", "330 ids"]),
    "warm-up too long": (MICRO, SFT, SFT.replace("2,", "20,"),
        ["config/micro.yaml:", "sft.schedule", "warmup_iterations (20)", "longer than the training"]),
    "phase that trains nothing": (MICRO, "stop_iteration: 24", "stop_iteration: 36",
        ["config/micro.yaml:", "pretrain.phases.phase2.stop_iteration", "would train nothing"]),
    "missing blend": (MICRO, "blend: micro-phase2", "blend: micro-phase3",
        ["config/micro.yaml:", "there is no blend micro-phase3", "did you mean micro-phase"]),
    "unknown corpus": ("config/blends/micro-phase1.yaml", "micro-facts", "micro-fakts",
        ["config/blends/micro-phase1.yaml:1", "weights.micro-fakts", "did you mean micro-facts?"]),
    "empty blend": ("config/blends/micro-phase1.yaml", "micro-equations: 0.6, micro-facts: 0.4",
        "micro-equations: 0, micro-facts: 0.0",
        ["config/blends/micro-phase1.yaml", "every weight is 0"]),
    "unknown prompts": (MICRO, "rlvr1: {prompts: micro-problems", "rlvr1: {prompts: problems",
        ["config/micro.yaml:", "rl.steps.rlvr1.prompts", "there is no prompts file problems"]),
    "unknown task": (MICRO, "micro_facts]", "micro_fact]",
        ["config/micro.yaml:", "eval.tasks", "did you mean micro_facts?"]),
    "pack size differs": ("config/mixtures/micro.yaml", "pack_size: 64", "pack_size: 128",
        ["config/micro.yaml:", "sft.batch.sequence", "pack_size of mixture micro (128)"]),
    "unknown stage": (MICRO, "eval:\n", "eval:\n  stages: [rl, dpo]\n",
        ["config/micro.yaml:", "there is no stage dpo"]),
    "import without a place": (MICRO, "extends: super3-tiny",
        "extends: super3-tiny\ninit: {import: models/base}",
        ["config/micro.yaml:3: init: say where the imported model goes in: start: sft"]),
    "imported model that is not there": (MICRO, "extends: super3-tiny",
        "extends: super3-tiny\nstart: sft\ninit: {import: models/base}",
        ["config/micro.yaml:4: init.import: models/base: there is no such folder"]),
    "changed key of a shared stage": (MICRO, "extends: super3-tiny",
        "extends: super3-tiny\nstart: sft",
        ["config/micro.yaml:", "is shared with super3-tiny", "set start: pretrain.phase1"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout.fresh(tmp_path_factory.mktemp("mistakes") / "checkout")


def refused(checkout, *arguments) -> str:
    """The message of a command that must fail politely within five seconds, jobs untouched."""
    done, seconds = checkout.timed(*arguments)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout and 'File "' not in done.stdout, done.stdout
    assert "error: " in done.stdout
    assert seconds < 5, f"{seconds:.1f} s"
    assert not list((checkout.folder / "results").rglob("*.json"))
    return done.stdout


AT_ONCE = list(MISTAKES)[::3]
NAMES = [n if n in AT_ONCE else pytest.param(n, marks=pytest.mark.long) for n in MISTAKES]


@pytest.fixture(scope="module")
def messages(request, tmp_path_factory):
    """What Snakemake says to each mistake, two at a time, each in a checkout of its own."""
    asked = [item for item in request.session.items if "messages" in item.fixturenames]
    names = [item.callspec.params["name"] for item in asked]
    copies = Queue()
    for number in range(2):
        copies.put(Checkout.fresh(tmp_path_factory.mktemp("mistakes") / f"checkout{number}"))
    with ThreadPoolExecutor(2) as pool:
        told = pool.map(lambda name: message(copies, name), names)
        return dict(zip(names, told, strict=True))


def message(copies, name):
    """What Snakemake says to one mistake, which is taken back."""
    checkout, (path, before, after, _) = copies.get(), MISTAKES[name]
    original = (checkout.folder / path).read_text()
    try:
        checkout.edit(path, before, after)
        return refused(checkout, *checkout.snakemake("--", TARGET))
    except AssertionError as error:
        return f"not refused as it should be: {error}"
    finally:
        (checkout.folder / path).write_text(original)
        copies.put(checkout)


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_told_with_place_and_advice(messages, name):
    for text in MISTAKES[name][3]:
        assert text in messages[name]
    assert "not refused" not in messages[name]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "sft.schedule.peek=1e-5",
            ['set="sft.schedule.peek=1e-5"', "did you mean sft.schedule.peak"],
        ),
        ("sft.iterations=many", ['set="sft.iterations=many"', "must be a whole number"]),
        ("sft.iterations", ['set="sft.iterations"', "not an assignment"]),
        ("sft.iterations=", ['set="sft.iterations="', "no value"]),
        ("7", ['set="7"', "not an assignment"]),
        ("blends.nothing.weights.a=1", ['set="blends.nothing.weights.a=1"', "micro-phase1"]),
    ],
)
def test_a_wrong_override_names_its_own_text(checkout, override, said):
    arguments = checkout.snakemake("--config", f"set={override}", "--", TARGET)
    message = refused(checkout, *arguments)
    for text in said:
        assert text in message


def test_an_unknown_run_gets_the_list_of_runs(checkout):
    message = refused(checkout, *checkout.snakemake("--", "results/super4/eval.json"))
    for text in ("there is no run super4", "super3", "nano3", "micro"):
        assert text in message


def test_without_a_profile_nothing_starts(checkout):
    message = refused(checkout, sys.executable, "-m", "snakemake", "-c1", "--", TARGET)
    assert "--profile profiles/local" in message


def test_a_misspelt_rule_in_a_profile_is_an_error(checkout):
    path = checkout.folder / "profiles/local/config.yaml"
    original = path.read_text()
    try:
        path.write_text(original + "set-threads: {pretrian: 2}\n")
        message = refused(checkout, *checkout.snakemake("--", TARGET))
    finally:
        path.write_text(original)
    assert "pretrian" in message and "pretrain" in message


def test_small_numbers_are_numbers_everywhere(checkout):
    assert "peak = 1e-05" in checkout.nemoflow(
        "explain", "micro", "sft.schedule.peak", "--set", "sft.schedule.peak=1e-5"
    )
    path = "config/micro.yaml"
    original = (checkout.folder / path).read_text()
    try:
        checkout.edit(path, SFT, SFT.replace("{", "{peak: 1e-5, "))
        assert "peak = 1e-05    config/micro.yaml:" in checkout.nemoflow(
            "explain", "micro", "sft.schedule.peak"
        )
    finally:
        (checkout.folder / path).write_text(original)
