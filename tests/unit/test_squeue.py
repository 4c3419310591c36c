"""What squeue tells of this checkout's jobs."""

import pytest

from nemoflow import squeue
from small_slurm import SmallSlurm, job


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return SmallSlurm(tmp_path, monkeypatch)


def test_only_jobs_of_this_folder_are_told(slurm):
    slurm.queue({"number": "1"}, {"number": "2", "folder": "/elsewhere"}, {"number": "3"})
    assert [found.number for found in squeue.jobs()] == ["1", "3"]
    assert "--me" in slurm.asked("squeue")


def test_a_silent_slurm_is_not_an_empty_one(slurm, monkeypatch):
    slurm.script("squeue", "exit 1")
    assert squeue.jobs() is None
    monkeypatch.setenv("PATH", "")
    assert squeue.jobs() is None


def test_rule_target_and_gpus_of_a_job():
    own = job(comment="rule_eval_task_wildcards_micro_rl_facts", nodes="4", resources="gres:gpu:8")
    assert (own.rule, own.title, own.gpus) == ("eval_task", "eval_task micro_rl_facts", 32)
    detached = job(comment="nemoflow:results/micro/eval.json", resources="N/A")
    assert (detached.rule, detached.target, detached.gpus) == (
        "",
        "results/micro/eval.json",
        0,
    )
    assert job(comment="rule_eval").rule == "eval"


def test_the_log_of_a_job_is_where_the_executor_puts_it():
    found = squeue.log_of(job(number="12", comment="rule_sft_wildcards_micro"))
    assert str(found) == ".snakemake/slurm_logs/rule_sft/micro/12.log"
    assert squeue.log_of(job(comment="(null)")) is None
