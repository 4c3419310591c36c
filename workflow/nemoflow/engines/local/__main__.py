"""Run one job of the local engine: `python -m nemoflow.engines.local JOB.json`."""

import os
import sys

import torch
import transformers

from nemoflow.engines.local.conversion import take
from nemoflow.engines.local.export import export
from nemoflow.engines.local.grpo import grpo
from nemoflow.engines.local.job import Job
from nemoflow.engines.local.merge import merge
from nemoflow.engines.local.pretrain import pretrain
from nemoflow.engines.local.sft import sft
from nemoflow.errors import UserError, report

TASKS = {
    "pretrain": pretrain,
    "merge": merge,
    "sft": sft,
    "rl": grpo,
    "import": take,
    "export": export,
}


def main() -> int:
    """Dispatch on the job's task; returns the exit code, 3 when training stopped itself."""
    if len(sys.argv) != 2:
        raise UserError("usage: python -m nemoflow.engines.local JOB.json")
    job = Job.read(sys.argv[1])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    return TASKS[job.task](job)


if __name__ == "__main__":
    report(main)
