"""The GPUs of a job, from Slurm's variables, or from Slurm where they are gone."""

import pytest

from nemoflow import allocation


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
