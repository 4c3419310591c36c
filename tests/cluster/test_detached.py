"""A controller that is a Slurm job itself, and jobs that can never start."""

import json
import re

import pytest

from cluster.conftest import PROFILE
from cluster.slurm import eventually

TARGET = "results/micro/eval.json"
KEY = "eval.published={rl: {micro_facts: {value: 0.5, tolerance: 0.1}}}"  # one short job is due


@pytest.fixture
def told(copy):
    """What `status` says now."""
    return lambda: json.loads(copy.nemoflow("status", "micro", "--json"))


def work_of(told):
    """The job of the target in a status."""
    return next(work for run in told["runs"] for work in run["works"] if work["path"] == TARGET)


def running(told):
    """A status in which the job of the target runs; None for another."""
    return told if work_of(told)["state"] == "runs" else None


def submit(checkout, *more, check=True):
    profile = ("--profile", str(PROFILE), "--set", KEY)
    return checkout.nemoflow("submit", TARGET, *profile, *more, check=check)


def test_a_detached_controller_that_is_requeued_waits_for_its_jobs_and_carries_on(
    slurm, copy, told
):
    said = submit(copy)
    number = re.search(r"Slurm job (\d+)", said)[1]
    assert "1 jobs: 1 eval" in said
    assert f"Slurm job {number} " in submit(copy, check=False)  # a second one is refused
    at_work = eventually(lambda: running(told()))
    assert any(f"Slurm job {number}, running" in line for line in at_work["controllers"])
    own = work_of(at_work)["job"]
    slurm.run("scontrol", "suspend", own)  # it outlasts the controller's return
    slurm.run("scontrol", "requeue", number)
    path = copy.folder / f"results/micro/logs/controller-{number}.log"
    eventually(lambda: "waiting for jobs" in path.read_text())
    slurm.run("scontrol", "resume", own)
    eventually(lambda: not slurm.jobs(copy.folder))
    ended = {job["JobId"]: job["JobState"] for job in slurm.finished()}
    assert ended[own] == ended[number] == "COMPLETED"
    assert copy.json(TARGET)["stages"]["rl"]["micro_facts"]["published"] == 0.5
    assert f"waiting for jobs of an earlier controller: {own} (" in path.read_text()
    assert work_of(told())["state"] == "done"
    assert "nothing to do" in submit(copy)


def test_a_job_that_can_never_start_ends_the_controllers_wait(slurm, copy, told, monkeypatch):
    monkeypatch.setenv("NEMOFLOW_HOPELESS_MINUTES", "0.05")
    three_of_two = [f"eval:{each}" for each in ("nodes=3", "tasks_per_node=2", "mpi='srun'")]
    more = ("--set-resources", *three_of_two, "--retries", "0", "--config", f"set={KEY}")
    done = copy.run(*copy.snakemake(*more, "--", TARGET, profile=str(PROFILE)))
    assert done.returncode == 1
    assert re.search(r"eval micro\) can never start: Part", done.stdout)
    assert "in the profile. It is cancelled in 0.05 minutes" in done.stdout
    assert "Traceback" not in done.stdout
    assert not slurm.jobs(copy.folder)
    failed = work_of(told())
    assert any("could never start" in line for line in failed["last_words"])
    assert "could never start" in (copy.folder / failed["log"]).read_text()


def test_a_partition_that_does_not_exist_is_named_before_the_first_submission(slurm, copy):
    wrong = ("--default-resources", "slurm_partition=nowhere", "--config", f"set={KEY}")
    done = copy.run(*copy.snakemake(*wrong, "--", TARGET, profile=str(PROFILE)))
    assert done.returncode == 1
    assert "error: there is no partition nowhere on this cluster" in done.stdout
    assert "there are: cpu, gpu" in done.stdout
    assert "Traceback" not in done.stdout
