"""A clone without the bytes knows everything, and asks for bytes only when it needs them."""

from collections import Counter

import pytest

from workflow.checkout import Checkout

SFT = "schedule: {warmup_iterations: 2, end_iteration: 12}"
AFTER_SFT = Counter(rl=2, export=3, eval_task=4, eval=1)


@pytest.fixture(scope="module")
def clone(built, tmp_path_factory) -> Checkout:
    folder = tmp_path_factory.mktemp("clone")
    origin = built.copy(folder / "origin")
    origin.commit_all()
    origin.git("clone", "--quiet", str(origin.folder), str(folder / "clone"))
    return Checkout(folder / "clone")


def test_a_clone_holds_manifests_and_no_bytes(clone):
    names = [p.name for p in (clone.folder / "results").rglob("*") if p.is_file()]
    assert "checkpoint.json" in names and "curve.csv" in names
    assert not [name for name in names if name.endswith((".bin", ".safetensors", ".parquet"))]
    assert not [name for name in names if name.startswith(".")]


def test_a_clone_has_nothing_to_do(clone):
    assert clone.planned() == Counter()
    assert "nothing to do" in clone.nemoflow("plan", "results/micro/eval.json")
    assert clone.git("status", "--short") == ""


def test_a_changed_key_plans_its_stages_and_says_which_bytes_are_missing(clone):
    clone.edit("config/micro.yaml", SFT, SFT.replace("{", "{peak: 5e-4, "))
    assert clone.planned() == Counter(sft=1) + AFTER_SFT
    words = clone.nemoflow("plan", "results/micro/eval.json")
    assert "sft.schedule.peak: 0.001 → 0.0005" in words
    done = clone.build(check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "results/micro/pretrain/phase2/checkpoint: 4 of 4 files are missing" in done.stdout
    assert "copy the bytes" in done.stdout and "rebuild: rm" in done.stdout
    clone.edit("config/micro.yaml", SFT.replace("{", "{peak: 5e-4, "), SFT)
    assert clone.planned() == Counter()


def test_the_same_commit_can_rebuild_the_missing_bytes(clone):
    target = "results/data/prompts/micro-facts.json"
    before = (clone.folder / target).read_bytes()
    (clone.folder / target).unlink()
    clone.build(target)
    assert (clone.folder / target).read_bytes() == before
    assert clone.git("status", "--short", "results", "provenance/records") == ""
