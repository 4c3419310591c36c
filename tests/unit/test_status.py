"""What runs, waits, failed and why, on one screen."""

import fcntl
import json
import time

import pytest

from nemoflow import journal, locks, status, status_page
from nemoflow.errors import UserError
from small_slurm import SmallSlurm

SFT = "results/micro/sft/checkpoint.json"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A checkout in which phase1 is trained."""
    monkeypatch.chdir(tmp_path)
    stage = tmp_path / "results/micro/pretrain/phase1"
    stage.mkdir(parents=True)
    (stage / "checkpoint.json").write_text('{"step": 24}')
    return SmallSlurm(tmp_path, monkeypatch)


def works(config, run="micro"):
    """The jobs of a run by their titles."""
    return {work.title: work for work in status.gather(config, run).runs[0].works}


def page(config, run=None):
    return "\n".join(status_page.lines(status.gather(config, run)))


def note(event, output=SFT, **facts):
    """Let a controller have noted something."""
    journal.FOLDER.mkdir(parents=True, exist_ok=True)
    line = {"event": event, "time": time.time(), "rule": "sft", "wildcards": {"run": "micro"}}
    with open(journal.FOLDER / "1.jsonl", "a") as file:
        file.write(json.dumps({**line, "outputs": [output], **facts}) + "\n")


def test_what_stands_what_runs_and_what_waits_for_what(slurm, config):
    slurm.queue(
        {"number": "5", "comment": "rule_pretrain_wildcards_micro_phase2"},
        {"number": "6", "state": "PENDING", "reason": "Resources"},
    )
    found = works(config)
    assert found["pretrain.phase1"].state == "done"
    assert found["pretrain.phase2"].state == "runs"
    assert "2 nodes, 16 GPUs, 1:30:00 of 4:00:00" in found["pretrain.phase2"].note
    assert found["pretrain.phase2"].figures.gpu_hours == 24.0
    assert (found["sft"].state, found["sft"].note) == ("waits", "for nodes to become free")
    assert found["rl.rlvr1"].state == "absent"
    assert "24.0 GPU-hours so far" in page(config)


def test_a_job_that_can_never_start_is_told_with_what_to_change(slurm, config):
    slurm.queue({"number": "6", "state": "PENDING", "reason": "PartitionConfig"})
    said = page(config)
    assert "can never start" in said
    assert "Change nodes, gres, threads, mem_mb or slurm_partition of sft in the profile" in said


def test_a_local_job_is_known_by_its_lock(slurm, config, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    lock = locks.lock_of(SFT)
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 12 on here: sft.py --spec x")
        file.flush()
        assert (works(config)["sft"].state, works(config)["sft"].note) == (
            "runs",
            "process 12 on here",
        )
    assert works(config)["sft"].state == "absent"
    assert "no Slurm here" in page(config)


def test_a_failure_comes_with_the_last_words_of_its_log(slurm, config, tmp_path):
    log = tmp_path / "results/micro/logs/sft.log"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\n" + "\n".join(f"line {i}" for i in range(9)) + "\nerror: no GPU\n\n")
    note("started", log=[str(log)])
    note("failed", message="SLURM-job '5' failed, SLURM status is: 'FAILED'")
    assert works(config)["sft"].state == "failed"
    assert works(config)["sft"].last_words[-1] == "error: no GPU"
    said = page(config)
    assert "failed: sft: SLURM-job '5' failed" in said
    assert "  results/micro/logs/sft.log\n" in said
    assert "line 3" not in said
    note("started", log=[str(log)])
    assert works(config)["sft"].state == "absent"


def test_the_log_of_an_earlier_attempt_is_not_taken_for_the_failures(slurm, config, tmp_path):
    log = tmp_path / "sft.log"
    log.write_text("all went well\n")
    note("started", log=[str(log)], time=time.time() + 100)
    note("failed", message="Slurm refused the job", time=time.time() + 101)
    assert works(config)["sft"].last_words == []


def test_interrupted_training_is_told_apart_from_what_never_began(slurm, config, tmp_path):
    progress = tmp_path / "results/micro/sft/progress"
    progress.mkdir(parents=True)
    attempts = {"count": 2, "first": 0.0, "spent": 60.0, "started": None}
    (progress / "attempts.json").write_text(json.dumps(attempts))
    assert works(config)["sft"].state == "stopped"
    assert "1×" in page(config)


def test_shared_data_and_controllers_are_told(slurm, config):
    slurm.queue(
        {"number": "8", "comment": "nemoflow:results/micro/eval.json"},
        {"number": "9", "comment": "rule_tokens_wildcards_micro_micro-facts_0000"},
    )
    said = page(config, "micro")
    assert (
        "controller  Slurm job 8, running for 1:30:00 of 4:00:00: results/micro/eval.json" in said
    )
    assert "tokens micro_micro-facts_0000" in said


def test_exports_and_scores_that_need_no_notice_share_a_line(slurm, config):
    rows = [line.split() for line in page(config).splitlines()]
    assert ["exports", "0", "of", "4"] in rows
    assert ["scores", "0", "of", "6"] in rows


def test_a_clone_with_nothing_built_says_so_and_stays_clean(tmp_path, monkeypatch, config):
    monkeypatch.chdir(tmp_path)
    SmallSlurm(tmp_path, monkeypatch)
    assert "nothing is built yet" in page(config)
    assert [path.name for path in tmp_path.iterdir()] == ["slurm"]
    with pytest.raises(UserError, match="there is no run nonesuch|nonesuch"):
        status.gather(config, "nonesuch")


def test_everything_is_plain_values_too(slurm, config):
    told = json.loads(json.dumps(status.document(status.gather(config, "micro"))))
    assert told["runs"][0]["works"][0]["figures"]["step"] == 24


def test_an_average_stands_behind_its_phase(config):
    titles = [title for title, _, _ in status.expected(config, "super3")]
    assert titles[1:4] == ["pretrain.phase2", "merged.500b", "pretrain.long_context_1m"]
    assert not [t for t in (w[0] for w in status.expected(config, "micro")) if "merged" in t]
