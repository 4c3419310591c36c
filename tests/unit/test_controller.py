"""Snakemake inside a Slurm job: what it leaves behind, and whom it waits for."""

import os
import socket

import pytest

from nemoflow import controller, locks, squeue
from small_slurm import SmallSlurm, job


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    return SmallSlurm(tmp_path, monkeypatch)


def test_the_variables_of_its_own_job_do_not_reach_the_jobs_that_it_submits(monkeypatch):
    for name in ("JOB_ID", "MEM_PER_NODE", "CONF"):
        monkeypatch.setenv(f"SLURM_{name}", "7")
    assert controller.leave_job() == "7"
    assert [name for name in os.environ if name.startswith("SLURM_")] == ["SLURM_CONF"]


def test_jobs_of_an_earlier_controller_are_waited_for_and_named(monkeypatch, capsys):
    queues = [[job(), job(number="2", comment="nemoflow:x")], [job()], []]
    monkeypatch.setattr(squeue, "jobs", lambda: queues.pop(0))
    monkeypatch.setattr(controller, "ROUND", 0.0)
    controller.wait_for_orphans()
    assert queues == []
    assert capsys.readouterr().err.count("waiting for jobs of an earlier controller: 1 (RUNN") == 1


def test_a_controller_whose_job_has_ended_on_another_host_leaves_no_locks_behind(slurm, tmp_path):
    dead, alive = "process 5 on n1: ", "process 6 on n2: "
    (tmp_path / ".snakemake/controllers").write_text(f"\n{dead}snakemake a\n{alive}snakemake b")
    for number, holder in (("1", dead), ("2", alive)):
        (tmp_path / controller.FOLDER).mkdir(exist_ok=True)
        (tmp_path / controller.FOLDER / number).write_text(holder)
    slurm.queue({"number": "2", "comment": "nemoflow:results/micro/eval.json"})
    known = locks.Controllers(tmp_path / ".snakemake")
    controller.forget_dead(known)
    assert known.listed() == [f"{alive}snakemake b"]
    controller.forget_dead(known, mine="2")
    assert known.listed() == []
    assert list((tmp_path / controller.FOLDER).iterdir()) == []


def test_nobody_is_forgotten_while_slurm_is_silent(slurm, tmp_path):
    holder = f"process 5 on {socket.gethostname()}x: "
    (tmp_path / ".snakemake/controllers").write_text(f"{holder}snakemake a")
    (tmp_path / controller.FOLDER).mkdir()
    (tmp_path / controller.FOLDER / "1").write_text(holder)
    slurm.script("squeue", "exit 1")
    known = locks.Controllers(tmp_path / ".snakemake")
    controller.forget_dead(known)
    assert known.listed() == [f"{holder}snakemake a"]
