"""What Slurm has given to the job that this process is in."""

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime

from nemoflow.errors import UserError

GPUS = re.compile(r"\bgpu(?::[a-zA-Z]\w*)?(?:[:=](\d+))?")  # gres:gpu:8, gres/gpu:b200=8, gpu


@dataclass(frozen=True)
class Allocation:
    """A job's number, its nodes in Slurm's order, and when its time ends (epoch s), if ever."""

    job: str
    hosts: list[str]
    ends: int | None


def of_this_job() -> Allocation | None:
    """The allocation that this process runs in; None outside Slurm.

    Snakemake's Slurm executor takes all variables but SLURM_JOB_ID from the environment of an MPI
    rule (snakemake-executor-plugin-slurm-jobstep, `Executor.run_job`), so Slurm is asked.

    Raises:
        UserError: Slurm does not answer.
    """
    if not (job := os.environ.get("SLURM_JOB_ID")):
        return None
    listed, _, ends = ask("squeue", "--noheader", f"--jobs={job}", "--format=%N|%e").partition("|")
    hosts = ask("scontrol", "show", "hostnames", listed).split()
    if not hosts:
        raise UserError(f"Slurm names no nodes of job {job}; look at scontrol show job {job}")
    return Allocation(job, hosts, epoch(ends))


def in_step() -> bool:
    """Whether this process was started by srun, so that another srun would share its step."""
    return "SLURM_STEP_ID" in os.environ


def epoch(told: str) -> int | None:
    """The epoch seconds of a time of squeue, the host's local time; None for N/A and the like."""
    try:
        return int(datetime.fromisoformat(told).timestamp())
    except ValueError:
        return None


def ask(*command: str) -> str:
    """What a command of Slurm prints.

    Raises:
        UserError: it is missing, failed or did not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise UserError(f"Slurm does not answer: {' '.join(command)}: {said.strip()}") from None
    return done.stdout.strip()


def gpus() -> int:
    """The GPUs of this job over all its nodes; 0 outside Slurm, and for a job without any."""
    told = os.environ
    if on_node := told.get("SLURM_GPUS_ON_NODE"):
        return int(on_node) * int(told.get("SLURM_JOB_NUM_NODES", "1"))
    if total := told.get("SLURM_GPUS"):  # 8, or b200:8
        return int(total.rpartition(":")[2])
    return asked(told["SLURM_JOB_ID"]) if "SLURM_JOB_ID" in told else 0


def asked(job: str) -> int:
    """The GPUs of a job as squeue tells: its nodes times its GPUs per node; 0 if it is silent."""
    try:
        told = ask("squeue", "--noheader", f"--jobs={job}", "--format=%D|%b")
    except UserError:
        return 0
    nodes, _, resources = told.partition("|")
    found = GPUS.search(resources)
    return int(nodes) * int(found[1] or 1) if nodes.isdigit() and found else 0
