"""A process learns its rank from srun, unless torchrun has told it."""

import os

from nemoflow import ranks


def test_srun_tells(monkeypatch):
    for name in ranks.SLURM:
        monkeypatch.delenv(name, raising=False)
    ranks.adopt()
    assert "RANK" not in os.environ
    for name, value in (("PROCID", "11"), ("NTASKS", "16"), ("LOCALID", "3")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    ranks.adopt()
    assert [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")] == ["11", "16", "3"]


def test_torchrun_wins(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    ranks.adopt()
    assert os.environ["WORLD_SIZE"] == "2"
