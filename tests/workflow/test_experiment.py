"""An experiment is a file of a few lines that owns what differs, and nothing before it."""

from collections import Counter

import pytest

LR = Counter(sft=1, rl=2, export=3, eval_task=4, eval=1)


@pytest.mark.parametrize(
    ("keys", "start", "jobs"),
    [
        (["sft.schedule.peak=5e-4"], "start: sft", LR),
        (
            ["rl.steps.rlvr2.prompts_per_step=8"],
            "start: rl.rlvr2",
            Counter(rl=1, export=1, eval_task=2, eval=1),
        ),
        (
            ["pretrain.phases.phase2.stop_iteration=30"],
            "start: pretrain.phase2",
            Counter(blend=1, pretrain=1, sft=1, rl=2, export=4, eval_task=6, eval=1),
        ),
        (
            ["seed=1"],
            None,
            Counter(blend=2, pretrain=2, sft=1, rl=2, export=4, eval_task=6, eval=1),
        ),
        (["eval.stages=[sft,rl]"], "start: eval", Counter(eval=1)),
        (["export.dtype=bfloat16"], "start: eval", Counter(export=3, eval_task=6, eval=1)),
    ],
)
def test_new_writes_a_run_that_plans_only_what_differs(copy, keys, start, jobs):
    before = copy.products()
    said = copy.nemoflow("new", "micro-try", "--extends", "micro", *keys)
    text = (copy.folder / "config/micro-try.yaml").read_text()
    assert "wrote config/micro-try.yaml" in said
    assert (start in text) if start else ("start" not in text)
    assert copy.planned("results/micro-try/eval.json") == jobs
    assert copy.planned() == Counter()
    assert copy.products() == before


def test_an_override_is_for_a_run_and_never_for_its_parent(copy):
    copy.nemoflow("new", "micro-try", "--extends", "micro", "sft.schedule.peak=5e-4")
    target = "results/micro-try/eval.json"
    assert copy.planned(target, overrides="eval.batch_size=8") == LR + Counter(eval_task=2)
    told = copy.run(
        *copy.snakemake("-n", "--config", "set=pretrain.schedule.peak=1", "--", target)
    ).stdout
    assert 'set="pretrain.schedule.peak=1"' in told and "is shared with micro" in told


def test_new_refuses_a_wrong_key_and_an_existing_run(copy):
    said = copy.nemoflow("new", "micro-try", "--extends", "micro", "sft.lr=1", check=False)
    assert "sft.lr is not a setting; did you mean" in said and "Traceback" not in said
    assert not (copy.folder / "config/micro-try.yaml").exists()
    said = copy.nemoflow("new", "micro", "--extends", "super3-tiny", "seed=1", check=False)
    assert "exists already" in said


def test_an_experiment_trains_beside_its_parent(copy):
    before = copy.products()
    copy.nemoflow("new", "micro-lr", "--extends", "micro", "rl.steps.rlvr2.iterations=4")
    copy.build("results/micro-lr/eval.json")
    assert copy.json("results/micro-lr/rl/rlvr2/checkpoint.json")["step"] == 4
    assert {n: b for n, b in copy.products().items() if "micro-lr" not in n} == before
    assert not (copy.folder / "results/micro-lr/pretrain").exists()
    stages = copy.json("results/micro-lr/eval.json")["stages"]
    assert stages["pretrain"] == copy.json("results/micro/eval.json")["stages"]["pretrain"]
