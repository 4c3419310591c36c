"""The tiny runs learn: base < SFT < RL on held-out sums, and the base knows its facts.

What `make demo` builds and prints, here with limits; minutes each, so `make test-long` runs them.
"""

import pytest

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


@pytest.mark.long
def test_super3_tiny_learns(fresh):
    fresh.build("results/super3-tiny/eval.json", "results/super3-tiny/report.html")
    assert_ladder(fresh, "super3-tiny")
    page = (fresh.folder / "results/super3-tiny/report.html").read_text()
    assert "rlvr2" in page and len(page) < 3_000_000
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
