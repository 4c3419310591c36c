"""Plans and mistakes of the cluster's profiles: before anything is submitted, without Slurm."""

import os
import sys

import pytest

from workflow.checkout import Checkout

TARGET = "results/super3/eval.json"
COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "sacct", "scontrol", "scancel", "sacctmgr")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A fresh checkout on a machine whose Slurm answers nothing and notes what it is asked."""
    for name in COMMANDS:
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/asked\nexit 1\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    return Checkout.fresh(tmp_path / "checkout")


def test_the_whole_plan_and_its_cost_are_there_in_seconds(checkout):
    plan = checkout.snakemake("-n", "--quiet", "rules", "--", TARGET, profile="profiles/b200")
    done, planned = checkout.timed(*plan)
    assert (
        done.returncode == 0 and "eval_task" in done.stdout and "pretrain         4" in done.stdout
    )
    done, checked = checkout.timed(
        sys.executable, "-m", "nemoflow", "check", "super3", "--profile", "profiles/b200"
    )
    assert done.returncode == 0 and "GPU-hours" in done.stdout and "rl.rlhf" in done.stdout
    assert max(planned, checked) < 15


def test_a_run_that_does_not_fit_is_stopped_before_its_first_job(checkout, tmp_path):
    done = checkout.run(*checkout.snakemake("--", TARGET, profile="profiles/h100"))
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "error: config/super3.yaml:" in done.stdout
    assert "pretrain.precision: h100 GPUs have no nvfp4" in done.stdout
    assert "sbatch" not in (tmp_path / "asked").read_text()


def test_mistakes_in_a_profile_stop_every_command(checkout):
    profile = "profiles/b200/config.yaml"
    checkout.edit(profile, "  sft: 12\n", "  stf: 12\n")
    checkout.edit(profile, "runtime: 2880", 'runtime: "2880"')
    checkout.edit(profile, "  environment_nodes:", "  enviroment_nodes:")
    command = checkout.snakemake("-n", "--", TARGET, profile="profiles/b200")
    for done in (
        checkout.run(*command),
        checkout.run(
            sys.executable, "-m", "nemoflow", "check", "super3", "--profile", "profiles/b200"
        ),
    ):
        assert done.returncode == 1 and "Traceback" not in done.stdout
        for text in (
            "set-threads.stf: there is no rule stf; did you mean sft?",
            "set-resources.sft.runtime: '2880' is text; write the number without quotes",
            "there is no resource enviroment_nodes; did you mean environment_nodes?",
        ):
            assert text in done.stdout
