"""A real Slurm for the tests of this folder, or the reason why there is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.slurm import Slurm, Unavailable
from workflow.checkout import TARGET, Checkout

HERE = Path(__file__).parent
PROFILE = HERE / "profile"
# A job of its own, as each GPU rule's is, starts Snakemake twice: 4 s of a core. Those that prepare
# data are few jobs, with the rules one after the other inside (their `nodes` would be added up).
# `corpus` is not with `tokens`: the parts would be gone before the controller records them.
GROUPS = {
    "data": ("tokenizer", "plan", "tokens", "render", "resolve"),
    "mixed": ("corpus", "blend", "pack"),
}
GROUPED = (
    "--groups",
    *(f"{rule}={group}" for group, rules in GROUPS.items() for rule in rules),
    *("--set-resource-scopes", "nodes=local", "--resources", "nodes=1"),
)


@pytest.fixture(scope="session")
def slurm():
    """A Slurm for the whole session; another session of the machine waits for its turn."""
    try:
        with Slurm() as started:
            yield started
    except Unavailable as reason:
        pytest.skip(f"no Slurm here: {reason}")


@pytest.fixture(scope="session")
def pipeline(slurm, tmp_path_factory) -> tuple[Checkout, subprocess.Popen]:
    """A checkout in which the micro run is built as Slurm jobs, and its controller."""
    checkout = Checkout.fresh(tmp_path_factory.mktemp("pipeline") / "checkout")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEMOFLOW_PARTITION", "spare")
        started = checkout.start(*controller(checkout, *GROUPED, "--", TARGET))
    yield checkout, started
    started.kill()


@pytest.fixture(scope="session", autouse=True)
def longest_first(request):
    """Start what takes longest before all tests, of which its own is the last."""
    if any("pipeline" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("pipeline")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "pipeline" in item.fixturenames)


def controller(checkout: Checkout, *arguments: str, profile: str = str(PROFILE)) -> list[str]:
    """The command line of a controller whose jobs are Slurm's; targets go last, behind `--`."""
    command = checkout.snakemake(*arguments, profile=profile)
    at = command.index("-m")
    return [sys.executable, str(HERE / "snakemake_quickly.py"), *command[at + 2 :]]
