"""What Slurm has given to the job that this process is in."""

import os
import re
import subprocess

GPUS = re.compile(r"\bgpu(?::[a-zA-Z]\w*)?(?:[:=](\d+))?")  # gres:gpu:8, gres/gpu:b200=8, gpu


def gpus() -> int:
    """The GPUs of this job over all its nodes; 0 outside Slurm, and for a job without any.

    Snakemake's Slurm executor takes all variables but SLURM_JOB_ID from the environment of an MPI
    rule (snakemake-executor-plugin-slurm-jobstep, `Executor.run_job`): then Slurm is asked.
    """
    told = os.environ
    if on_node := told.get("SLURM_GPUS_ON_NODE"):
        return int(on_node) * int(told.get("SLURM_JOB_NUM_NODES", "1"))
    if total := told.get("SLURM_GPUS"):  # 8, or b200:8
        return int(total.rpartition(":")[2])
    return asked(told["SLURM_JOB_ID"]) if "SLURM_JOB_ID" in told else 0


def asked(job: str) -> int:
    """The GPUs of a job as squeue tells: its nodes times its GPUs per node; 0 if it is silent."""
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%D|%b"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    nodes, _, resources = done.stdout.strip().partition("|")
    found = GPUS.search(resources)
    return int(nodes) * int(found[1] or 1) if nodes.isdigit() and found else 0
