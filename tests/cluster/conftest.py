"""A real Slurm for the tests of this folder, or the reason why there is none."""

import sys
from pathlib import Path

import pytest

from cluster.slurm import Slurm, Unavailable
from workflow.checkout import Checkout

HERE = Path(__file__).parent
PROFILE = HERE / "profile"


@pytest.fixture(scope="session")
def slurm():
    """Two nodes of 8 CPUs and 8 GPU devices; the whole session's, and one session's at a time."""
    try:
        with Slurm() as started:
            yield started
    except Unavailable as reason:
        pytest.skip(f"no Slurm here: {reason}")


def controller(checkout: Checkout, *arguments: str, profile: str = str(PROFILE)) -> list[str]:
    """The command line of a controller whose jobs are Slurm's; targets go last, behind `--`."""
    command = checkout.snakemake(*arguments, profile=profile)
    at = command.index("-m")
    return [sys.executable, str(HERE / "snakemake_quickly.py"), *command[at + 2 :]]
