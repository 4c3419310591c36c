"""What tests of several folders need: a finished micro run, built once per session."""

import os
import signal

import pytest

import small_browser
from nemoflow.chromium import browser
from workflow.checkout import ALONE, Checkout, once

os.environ.setdefault("NEMOFLOW_DEVICE", "cpu")  # golden digests are a CPU's
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts behind

# The longest files; the second needs no finished run, while the first builds it.
FIRST = (
    "test_golden.py",
    "test_mistakes.py",
    "test_publish.py",
    "test_failure.py",
    "test_resume.py",
    "test_rerun.py",
    "test_scripts_again.py",
    "test_experiment.py",
)


def pytest_addoption(parser):
    parser.addoption(
        "--write-golden",
        action="store_true",
        help="write tests/rules/golden.json from what the stages make now, instead of comparing",
    )


def pytest_collection_modifyitems(items):
    """Begin with the longest files, so that no worker ends with one alone."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))


@pytest.fixture(scope="session", autouse=True)
def no_slurm(request, tmp_path_factory):
    """Let Slurm's commands fail at once: the one of tests/cluster comes and goes meanwhile."""
    if any("cluster" in item.path.parts for item in request.session.items):
        yield
        return
    folder = tmp_path_factory.mktemp("no_slurm")
    for name in ("sbatch", "scontrol", "sinfo", "squeue"):
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Checkout:
    """A finished micro run; tests read it, or copy it before they change anything."""
    return Checkout(once(tmp_path_factory, "built", lambda folder: Checkout.fresh(folder).build()))


@pytest.fixture
def alone(monkeypatch):
    """Let engines be whole processes of their own, to be stopped and killed."""
    monkeypatch.setenv(ALONE, "yes")


@pytest.fixture
def copy(built, tmp_path) -> Checkout:
    """A copy of the finished micro run to change."""
    return built.copy(tmp_path / "checkout")


@pytest.fixture
def fresh(tmp_path) -> Checkout:
    """A checkout with nothing built."""
    return Checkout.fresh(tmp_path / "checkout")


@pytest.fixture(scope="session")
def chromium():
    """A running browser; skipped where there is none and none can be installed."""
    if reason := small_browser.install():
        pytest.skip(reason)
    with browser() as running:
        yield running
