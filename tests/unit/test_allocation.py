"""The GPUs of a job, from Slurm's variables, or from Slurm where they are gone."""

import pytest

from nemoflow import allocation
from nemoflow.errors import UserError


@pytest.mark.parametrize(
    ("told", "gpus"),
    [
        ({}, 0),
        ({"SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_NUM_NODES": "4", "SLURM_GPUS": "7"}, 32),
        ({"SLURM_GPUS_ON_NODE": "8"}, 8),
        ({"SLURM_GPUS": "b200:16"}, 16),
        ({"SLURM_GPUS": "2"}, 2),
    ],
)
def test_variables_tell(monkeypatch, told, gpus):
    for name in ("SLURM_JOB_ID", "SLURM_GPUS_ON_NODE", "SLURM_JOB_NUM_NODES", "SLURM_GPUS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert allocation.gpus() == gpus


@pytest.mark.parametrize(
    ("printed", "gpus"),
    [
        ("4|gres:gpu:8", 32),
        ("4|gres/gpu:b200:8", 32),
        ("2|gres/gpu=4", 8),
        ("2|gres/gpu:h100=4", 8),
        ("2|gpu", 2),
        ("2|N/A", 0),
        ("", 0),
    ],
)
def test_slurm_is_asked_where_the_executor_took_them_away(monkeypatch, tmp_path, printed, gpus):
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\ntest \"$2\" = --jobs=17 && echo '{printed}'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    for name in ("SLURM_GPUS_ON_NODE", "SLURM_GPUS"):
        monkeypatch.delenv(name, raising=False)
    assert allocation.gpus() == gpus
    squeue.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert allocation.gpus() == 0


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Stand-ins for squeue and scontrol that print what a test wants."""

    def install(**printed):
        for name, text in printed.items():
            (tmp_path / name).write_text(f"#!/bin/sh\nprintf '%s' '{text}'\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setenv("SLURM_JOB_ID", "17")

    return install


def test_a_job_learns_its_nodes_in_order_and_the_end_of_its_time(tools, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    tools(squeue="n[3-4]|2024-05-01T12:00:00", scontrol="n3\nn4\n")
    assert allocation.of_this_job() == allocation.Allocation("17", ["n3", "n4"], 1714564800)
    tools(squeue="n3|N/A", scontrol="n3\n")
    assert allocation.of_this_job().ends is None
    monkeypatch.delenv("SLURM_JOB_ID")
    assert allocation.of_this_job() is None


def test_a_slurm_that_does_not_answer_is_told(tools, tmp_path):
    tools(squeue="", scontrol="")
    with pytest.raises(UserError, match="no nodes of job 17"):
        allocation.of_this_job()
    (tmp_path / "squeue").write_text("#!/bin/sh\necho Unable to contact >&2; exit 1\n")
    with pytest.raises(UserError, match="Slurm does not answer: squeue .*Unable to contact"):
        allocation.of_this_job()


def test_a_step_is_told_from_a_job(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    assert not allocation.in_step()
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert allocation.in_step()
