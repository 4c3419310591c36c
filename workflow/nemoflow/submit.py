"""A controller as a Slurm job of its own: planned here, then left alone."""

import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nemoflow import planning, site, squeue
from nemoflow.allocation import ask
from nemoflow.config import Config
from nemoflow.config.load import FROZEN, SUBMITTED
from nemoflow.controller import SECONDS_BEFORE_END
from nemoflow.errors import UserError

MEMORY = "4G"  # the DAG of a 25T-token corpus takes 1 GB
LONGEST = "30-00:00:00"  # where the partition knows no limit


def submit(
    config: Config, targets: list[str], profile: str, overrides: str | None, dry_run: bool
) -> Iterator[str]:
    """Plan targets, and give a controller that builds them to Slurm.

    Raises:
        UserError: the plan fails, Slurm is not here or refuses, or one builds these targets.
    """
    if not dry_run:
        refuse_without_slurm(targets, profile)
        refuse_twin(targets)
    if not (jobs := planning.dry_run(targets, profile, overrides)):
        yield "nothing to do: everything is built, from just this config"
        return
    counts = ", ".join(f"{count} {rule}" for rule, count in Counter(j.rule for j in jobs).items())
    yield f"{len(jobs)} jobs: {counts}"
    log = log_of(targets[0])
    command, script = sbatch(targets, log), script_of(targets, profile, overrides)
    if dry_run:
        yield f"would submit: {shlex.join(command)}"
        yield f"which runs:   {script.splitlines()[-1]}"
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    number = hand_over(command, script, config.freeze(Path(".snakemake/config")).absolute())
    yield f"controller: Slurm job {number}, for {' '.join(targets)} by {profile}"
    yield f"log:        {str(log).replace('%j', number)}"
    yield "watch:      python -m nemoflow status"
    yield f"stop:       scancel --full --signal=INT {number} (its jobs too), or scancel {number}"
    yield "            (its running jobs go on; the next controller waits for them)"


def refuse_without_slurm(targets: list[str], profile: str) -> None:
    """Raise UserError where there is no sbatch, or Slurm does not answer."""
    here = f"snakemake --profile {profile} -- {' '.join(targets)}"
    if shutil.which("sbatch") is None:
        raise UserError(
            "sbatch is not on PATH: submit from a node of a Slurm cluster, or build from this"
            f" terminal: {here}"
        )
    if squeue.jobs() is None:
        raise UserError("Slurm does not answer (squeue --me fails); nothing was submitted")


def refuse_twin(targets: list[str]) -> None:
    """Raise UserError where a controller waits or runs for the same targets."""
    for job in squeue.jobs() or []:
        if job.target and set(job.target.split()) & set(targets):
            raise UserError(
                f"Slurm job {job.number} ({job.state}) builds {job.target} in this checkout"
                f" already; scancel {job.number} first, or wait"
            )


def log_of(target: str) -> Path:
    """The log of a controller, beside those of the target's jobs; %j is its number."""
    parts = Path(target).parts
    run = parts[1] if len(parts) > 2 and parts[0] == "results" else "data"
    return Path("results") / run / "logs" / "controller-%j.log"


def sbatch(targets: list[str], log: Path) -> list[str]:
    """The command that submits it: one CPU, as long as the partition allows, begun again when lost.

    Before its time is up, Slurm signals the controller, which requeues itself.
    """
    here = site.load()
    partition = here.cpu_partition or here.partition
    optional = {"account": here.account, "partition": partition, "time": longest(partition)}
    return [
        "sbatch",
        "--parsable",
        "--job-name=nemoflow",
        f"--comment={squeue.CONTROLLER}{' '.join(targets)}",
        *(f"--{name}={value}" for name, value in optional.items() if value),
        "--ntasks=1",
        "--cpus-per-task=1",
        f"--mem={MEMORY}",
        "--requeue",
        "--open-mode=append",
        f"--output={log}",
        f"--chdir={os.getcwd()}",
        f"--signal=B:USR1@{SECONDS_BEFORE_END}",
        "--export=ALL",
    ]


def longest(partition: str | None) -> str | None:
    """The longest time that a partition, or the default one, allows; None where Slurm is silent."""
    try:
        told = ask("sinfo", "--all", "--noheader", "--format=%P|%l")
    except UserError:
        return None
    limits = dict(line.split("|", 1) for line in told.splitlines() if "|" in line)
    names = [partition, f"{partition}*"] if partition else [n for n in limits if n.endswith("*")]
    found = next((limits[name] for name in names if name in limits), None)
    return LONGEST if found == "infinite" else found


def script_of(targets: list[str], profile: str, overrides: str | None) -> str:
    """The job's script; secrets reach it by the environment alone."""
    command = [sys.executable, "-m", "nemoflow.controller", "--profile", profile]
    if overrides:
        command += ["--config", f"set={overrides}"]
    return f"#!/bin/sh\nexec {shlex.join([*command, '--', *targets])}\n"


def hand_over(command: list[str], script: str, frozen: Path) -> str:
    """Submit, with the config as it is now; the number of the job.

    The environment of a job that we are in ourselves stays behind.

    Raises:
        UserError: what sbatch says.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
    told = {**kept, FROZEN: str(frozen), SUBMITTED: "1"}
    done = subprocess.run(command, input=script, env=told, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.replace("sbatch: error: ", "").split())
        raise UserError(
            f"Slurm does not take the controller: {said}. Account and partition of this"
            " site stand in profiles/site.yaml"
        )
    return done.stdout.strip().split(";")[0]
