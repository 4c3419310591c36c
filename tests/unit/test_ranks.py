"""A process learns its rank from srun, unless torchrun has told it."""

import os

from nemoflow import ranks


def test_srun_tells(monkeypatch):
    others = {name: value for name, value in os.environ.items() if name not in ranks.SLURM}
    monkeypatch.setattr(os, "environ", others)
    ranks.adopt()
    assert "RANK" not in os.environ
    for name, value in (("PROCID", "11"), ("NTASKS", "16"), ("LOCALID", "3")):
        monkeypatch.setitem(others, f"SLURM_{name}", value)
    ranks.adopt()
    assert [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")] == ["11", "16", "3"]


def test_torchrun_wins(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    ranks.adopt()
    assert os.environ["WORLD_SIZE"] == "2"
