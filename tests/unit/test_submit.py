"""A controller is handed to Slurm: what is asked, what is said, what is refused."""

import os
import shlex
from types import SimpleNamespace

import pytest

from nemoflow import planning, submit
from nemoflow.errors import UserError
from small_slurm import SmallSlurm

TARGET = "results/micro/eval.json"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm, and a plan of two jobs."""
    monkeypatch.chdir(tmp_path)
    jobs = [SimpleNamespace(rule="eval_task"), SimpleNamespace(rule="eval")]
    monkeypatch.setattr(planning, "dry_run", lambda *_: jobs)
    return SmallSlurm(tmp_path, monkeypatch)


def send(config, overrides=None, dry_run=False):
    return "\n".join(submit.submit(config, [TARGET], "profiles/b200", overrides, dry_run))


def test_what_will_be_built_where_the_log_is_and_how_to_stop_it_are_said(slurm, config):
    said = send(config)
    assert "2 jobs: 1 eval_task, 1 eval" in said
    assert "controller: Slurm job 77, for results/micro/eval.json by profiles/b200" in said
    assert "results/micro/logs/controller-77.log" in said
    assert "scancel --full --signal=INT 77" in said


def test_the_job_begins_again_when_lost_and_secrets_stand_in_no_line(slurm, config, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-marker")
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("NEMOFLOW_ACCOUNT", "llm")
    send(config, overrides="eval.published={a: 1}")
    asked = slurm.asked("sbatch")
    assert {"--requeue", "--open-mode=append", "--account=llm", "--time=30-00:00:00"} <= {*asked}
    assert f"--comment=nemoflow:{TARGET}" in asked
    assert f"--chdir={os.getcwd()}" in asked
    script = (slurm.folder / "script").read_text()
    assert shlex.split(script.splitlines()[-1])[-5:] == [
        "profiles/b200", "--config", "set=eval.published={a: 1}", "--", TARGET,
    ]  # fmt: skip
    assert "secret-marker" not in script + " ".join(asked)
    environment = (slurm.folder / "environment").read_text()
    assert "HF_TOKEN=secret-marker" in environment
    assert "SLURM_JOB_ID" not in environment


def test_the_config_of_the_submission_goes_with_the_job(slurm, config):
    send(config)
    told = (slurm.folder / "environment").read_text().splitlines()
    frozen = next(line for line in told if line.startswith("NEMOFLOW_CONFIG="))
    assert type(config).thawed(frozen.partition("=")[2]).raw == config.raw
    assert "NEMOFLOW_SUBMITTED=1" in told


def test_a_dry_run_submits_nothing_and_needs_no_slurm(slurm, config, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "would submit: sbatch --parsable" in send(config, dry_run=True)
    assert slurm.asked("sbatch") == []


def test_a_controller_for_the_same_target_is_named(slurm, config):
    slurm.queue({"number": "9", "comment": f"nemoflow:{TARGET}"})
    with pytest.raises(UserError, match="Slurm job 9 .*builds results/micro/eval.json"):
        send(config)
    slurm.queue({"number": "9", "comment": "nemoflow:results/other/eval.json"})
    assert "Slurm job 77" in send(config)


def test_without_slurm_or_with_a_refusal_the_error_says_what_to_do(slurm, config, monkeypatch):
    slurm.script("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    with pytest.raises(UserError, match="not take the controller: invalid partition .*site.yaml"):
        send(config)
    slurm.script("squeue", "exit 1")
    with pytest.raises(UserError, match="Slurm does not answer"):
        send(config)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sbatch is not on PATH.*snakemake --profile profiles/b200"):
        send(config)


def test_nothing_is_submitted_when_nothing_is_due(slurm, config, monkeypatch):
    monkeypatch.setattr(planning, "dry_run", lambda *_: [])
    assert send(config).startswith("nothing to do")
    assert slurm.asked("sbatch") == []
