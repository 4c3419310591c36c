"""Scores by file name, task by task: any task of any stage; what fails or dies leaves none."""

import os
import shutil
import signal
import time
from collections import Counter

import pytest

from openai_server import Server
from workflow.test_resume import differing

SCORES = "results/micro/eval/sft"


def test_any_task_of_any_stage_is_a_target(copy):
    target = "results/micro/eval/pretrain.phase1/tiny_facts.json"
    assert copy.planned(target) == Counter(export=1, eval_task=1, resolve=1)
    done = copy.build("results/micro/eval/sft/base.json", check=False)
    assert "base is a suite; ask for one of its tasks: mmlu, arc_challenge" in done.stdout


def test_a_server_without_the_model_makes_no_score(copy):
    """And the scores that were there stay: the change that could not be is taken back."""
    before = copy.products()
    with Server(name="another") as server:
        section = f"eval:\n  endpoint: {{url: '{server.url}', model: 'micro-{{stage}}'}}\n"
        copy.edit("config/micro.yaml", "eval:\n", f"{section}  backend: endpoint\n")
        done = copy.build(f"{SCORES}/micro_facts.json", check=False)
        server.shutdown()
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "serves no micro-sft, but another; correct the name" in done.stdout
    assert copy.products() == before


@pytest.mark.long
@pytest.mark.usefixtures("alone")
def test_a_killed_evaluation_goes_on_with_the_tasks_that_are_left(copy, built):
    scores = copy.folder / "results/micro/eval"
    shutil.rmtree(scores)
    for path in ("eval.json", ".eval.json.last"):
        (scores.parent / path).unlink()
    controller = copy.start(*copy.snakemake("--cores", "1", "--"), "results/micro/eval.json")
    deadline = time.monotonic() + 300
    while len(list(scores.glob("*/[!.]*.json"))) < 2 or not copy.processes("harness"):
        assert controller.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(controller.pid, signal.SIGKILL)
    controller.wait()
    done = {path: path.stat().st_mtime_ns for path in scores.glob("*/[!.]*.json")}
    assert copy.planned()["eval_task"] == 6 - len(done) <= 4
    copy.build()
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert differing(copy, built) == []
