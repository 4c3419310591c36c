"""SIGTERM to a stage's script: the trainer saves first, and the same command goes on from there."""

import re
import shutil
import time

import pytest

from workflow.test_resume import differing

STAGE = "results/micro/sft"


@pytest.mark.usefixtures("alone")
def test_sigterm_to_a_script_saves_and_the_same_command_ends_in_the_same_bytes(built, copy):
    shutil.rmtree(copy.folder / STAGE)
    progress = copy.folder / STAGE / "progress"
    controller = copy.start(*copy.snakemake("--", f"{STAGE}/checkpoint.json"))
    while not (progress / "metrics.jsonl").exists():  # the first step is about to begin
        assert controller.poll() is None, (copy.folder / "output.txt").read_text()
        time.sleep(0.002)
    trainer = copy.processes("nemoflow.engines.local")[0]
    trainer.suspend()  # it has twelve steps, done in a blink
    trainer.parent().terminate()
    time.sleep(0.2)
    trainer.resume()
    assert controller.wait(timeout=300) == 1
    told = (copy.folder / "output.txt").read_text()
    step = int(re.search(r": SIGTERM: ended after step (\d+) of 12; the same command", told)[1])
    assert "error: training saved a checkpoint and ended early" in told
    done = copy.build(f"{STAGE}/checkpoint.json")
    assert step == 0 or f"goes on from {STAGE}/progress/step_{step:07d}" in done.stdout
    assert differing(copy, built) == []
