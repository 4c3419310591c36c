"""Run one job of the megatron engine, one process per GPU.

`python -m nemoflow.engines.megatron JOB.json`. The last line of defence against a wrong image comes
first, so Megatron-Bridge is imported by the functions that need it.
"""

import importlib
import sys
import time
from typing import Any

from nemoflow import images, ranks
from nemoflow.errors import UserError, report
from nemoflow.files import read_json

TASKS = {  # module.function, imported when it is asked for
    "pretrain": "train.train",
    "sft": "train.train",
    "export": "export.export",
    "import": "conversion.take",
    "merge": "merge.merge",
}
OTHERS_WAIT = 10.0  # seconds; srun ends all processes when one fails, before the first has spoken


def main() -> int:
    """Dispatch on the job's task; returns the exit code.

    Of many processes the first alone tells of a user's mistake, and alone returns a code other than
    0: srun answers with the highest of them, and torchrun with 1.
    """
    if len(sys.argv) != 2:
        raise UserError("usage: python -m nemoflow.engines.megatron JOB.json")
    ranks.adopt()
    rank, world = ranks.place()
    try:
        code = work(read_json(sys.argv[1]))
    except UserError:
        if rank == 0:
            raise
        time.sleep(OTHERS_WAIT)
        return 1
    if code and world > 1:
        if rank:
            return 0
        time.sleep(OTHERS_WAIT)
    return code


def work(job: dict[str, Any]) -> int:
    """Do what a job asks for; the exit code."""
    images.probe()
    if job["task"] not in TASKS:
        known = ", ".join(TASKS)
        raise UserError(f"task {job['task']}: the megatron engine knows {known}")
    module, _, name = TASKS[job["task"]].partition(".")
    function = getattr(importlib.import_module(f"nemoflow.engines.megatron.{module}"), name)
    return function(job)


if __name__ == "__main__":
    report(main)
