"""The tiny runs learn: base < SFT < RL on held-out sums, and the base knows its facts.

What `make demo` builds and prints, here with limits; minutes each, so `make test-long` runs them.
"""

import re

import pytest

import answers
from small_browser import look_over
from workflow.checkout import Checkout


def scores(checkout: Checkout, run: str, task: str) -> list[float]:
    """A task's score of the pretrained, fine-tuned and reinforced model of a run."""
    stages = checkout.json(f"results/{run}/eval.json")["stages"]
    return [stages[stage][task]["value"] for stage in ("pretrain", "sft", "rl")]


def assert_ladder(checkout: Checkout, run: str) -> None:
    base, sft, rl = scores(checkout, run, "tiny_arithmetic")
    assert sft >= base + 0.05
    assert rl >= sft + 0.1
    assert rl >= 0.5
    assert scores(checkout, run, "tiny_facts")[0] >= 0.9


def assert_exports_answer_as_trained(checkout: Checkout, run: str) -> None:
    """lm-eval, through plain transformers, hears 99% of what the trained weights say."""
    results = checkout.folder / "results" / run
    for stage, trained in (("sft", "sft"), ("rl", "rl/rlvr2")):
        for task in ("tiny_arithmetic", "tiny_facts"):
            found = answers.compare(results, f"{trained}/checkpoint", stage, task)
            assert sum(same for same, _ in found) >= 0.99 * len(found)
            assert all(scored for _, scored in found)


def assert_adapters_do(checkout: Checkout) -> None:
    """LoRA keeps half of what full fine-tuning gains, with under 15% of the parameters."""
    checkout.build("results/super3-tiny-lora/eval.json")
    full = checkout.json("results/super3-tiny/eval.json")["stages"]
    lora = checkout.json("results/super3-tiny-lora/eval.json")["stages"]
    base, best, found = (
        stages[stage]["tiny_arithmetic"]["value"]
        for stages, stage in ((full, "pretrain"), (full, "sft"), (lora, "sft"))
    )
    assert found - base >= (best - base) / 2
    assert lora["sft"]["tiny_facts"]["value"] >= 0.9
    log = (checkout.folder / "results/super3-tiny-lora/logs/sft.log").read_text()
    assert float(re.search(r"parameters are trained \(([\d.]+)%\)", log)[1]) < 15
    parity = checkout.json("results/super3-tiny-lora/parity/sft.json")
    assert parity["verdict"] == "passed" and parity["adapters"]["max_difference"] <= 1e-5


@pytest.mark.long
def test_super3_tiny_learns(fresh, chromium):
    fresh.build("results/super3-tiny/eval.json", "results/super3-tiny/report.html")
    assert_ladder(fresh, "super3-tiny")
    assert_exports_answer_as_trained(fresh, "super3-tiny")
    merged = fresh.json("results/super3-tiny/pretrain/phase2/merged/last.json")["valid_loss"]
    assert merged["merged"] <= 1.005 * merged["last"]
    assert_adapters_do(fresh)
    page = fresh.folder / "results/super3-tiny/report.html"
    assert "rlvr2" in page.read_text() and page.stat().st_size < 3_000_000
    look_over(chromium, page)
    assert fresh.planned("results/super3-tiny/eval.json").total() == 0
    nano = fresh.planned("results/nano3-tiny/eval.json")
    assert not {"tokenizer", "plan", "tokens", "corpus", "render", "pack", "resolve"} & set(nano)


@pytest.mark.long
def test_nano3_tiny_learns(fresh):
    fresh.build("results/nano3-tiny/eval.json")
    assert_ladder(fresh, "nano3-tiny")


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_learn_too(fresh, seed):
    run = f"super3-tiny-s{seed}"
    fresh.nemoflow("new", run, "--extends", "super3-tiny", f"seed={seed}")
    fresh.build(f"results/{run}/eval.json")
    assert_ladder(fresh, run)
