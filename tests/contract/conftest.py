"""Contract tests: our files and our model against code that we do not write.

They run in an environment of their own, because Megatron-Bridge's pins conflict with the local
engine's: `make test` builds it with envs/megatron.sh. Anywhere else they are skipped.
"""

import importlib.metadata
import os
from pathlib import Path

import pytest

from nemoflow.engines.megatron import stubs

ROOT = Path(__file__).parents[2]
try:
    importlib.metadata.version("megatron-bridge")
    HERE = True
except importlib.metadata.PackageNotFoundError:
    HERE = False

if HERE:
    os.environ["HF_HUB_OFFLINE"] = "1"
    stubs.install()


def pytest_configure(config):
    """Upstream's deprecations are upstream's."""
    if HERE:
        config.addinivalue_line("filterwarnings", "ignore")


class Elsewhere(pytest.Module):
    """A contract module where Megatron-Bridge is not installed."""

    def collect(self):
        pytest.skip("needs the contract environment: envs/megatron.sh", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """Skip modules before they import what is not there."""
    return None if HERE else Elsewhere.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def main_python() -> Path:
    """The Python of the main environment: NEMOFLOW_PYTHON, or the repository's .venv."""
    python = ROOT / os.environ.get("NEMOFLOW_PYTHON", ".venv/bin/python")
    if not python.exists():
        pytest.skip(f"{python} is not there; set NEMOFLOW_PYTHON to the main environment's Python")
    return python


@pytest.fixture(scope="session")
def results() -> Path:
    """The results of a finished tiny run: NEMOFLOW_RESULTS, or the repository's own."""
    return ROOT / os.environ.get("NEMOFLOW_RESULTS", "results")


@pytest.fixture
def gpus_put_back(monkeypatch):
    """Take away afterwards what stands in for GPUs."""
    import torch

    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(torch, "compile", torch.compile)
    answers = ("get_device_properties", "get_device_capability", "current_device", "device_count")
    for name in answers:
        monkeypatch.setattr(torch.cuda, name, getattr(torch.cuda, name))
