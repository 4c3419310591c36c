"""Jobs that can never start are told of, and cancelled after the stated time."""

from pathlib import Path

import pytest

from nemoflow import waiting
from nemoflow.errors import UserError
from small_slurm import SmallSlurm, job

HOPELESS = {"state": "PENDING", "reason": "PartitionConfig"}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return SmallSlurm(tmp_path, monkeypatch)


def test_a_hopeless_job_is_told_of_then_cancelled_and_its_log_says_why(slurm, capsys):
    watch = waiting.Watch(minutes=10)
    watch.look([job(**HOPELESS)], now=0)
    said = capsys.readouterr().err
    assert "Slurm job 1 (sft micro) can never start: PartitionConfig" in said
    assert "cancelled in 10 minutes" in said
    watch.look([job(**HOPELESS)], now=599)
    assert (slurm.asked("scancel"), capsys.readouterr().err) == ([], "")
    watch.look([job(**HOPELESS)], now=600)
    assert slurm.asked("scancel") == ["1"]
    log = Path(".snakemake/slurm_logs/rule_sft/micro/1.log").read_text()
    assert log.startswith("error: Slurm job 1 (sft micro) was cancelled, it could never start")


def test_a_retry_of_a_hopeless_job_is_cancelled_at_once(slurm):
    watch = waiting.Watch(minutes=10)
    watch.look([job(**HOPELESS)], now=0)
    watch.look([job(**HOPELESS)], now=600)
    watch.look([job(**HOPELESS, number="2")], now=601)
    assert slurm.asked("scancel") == ["2"]


def test_a_reason_that_passes_spares_the_job(slurm):
    watch = waiting.Watch(minutes=10)
    watch.look([job(**HOPELESS)], now=0)
    watch.look([job(state="PENDING", reason="Resources")], now=700)
    watch.look([job()], now=800)
    assert (slurm.asked("scancel"), watch.since) == ([], {})


def test_jobs_of_other_programs_are_not_ours_to_cancel(slurm, capsys):
    watch = waiting.Watch(minutes=0)
    for now in (0, 1):
        watch.look([job(**HOPELESS, comment="(null)")], now)
    assert (slurm.asked("scancel"), capsys.readouterr().err) == ([], "")


def test_a_partition_or_account_that_is_not_there_is_refused(slurm):
    slurm.script("sacctmgr", "echo llm")
    waiting.refuse_unknown({"sft": [("gpu", "LLM"), (None, None), ("gpu,cpu", "llm")]})
    with pytest.raises(UserError, match="no partition b200 .*asked for by rl.*there are: cpu, gpu"):
        waiting.refuse_unknown({"sft": [("gpu", None)], "rl": [("gpu,b200", None)]})
    with pytest.raises(UserError, match="no account mine .*asked for by sft.*there are: llm"):
        waiting.refuse_unknown({"sft": [("gpu", "mine")]})


def test_a_slurm_that_cannot_tell_refuses_nothing(slurm):
    for name in ("sinfo", "sacctmgr"):
        slurm.script(name, "echo disabled; exit 1")
    waiting.refuse_unknown({"sft": [("b200", "mine")]})
