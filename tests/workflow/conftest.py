"""The finished micro run published to a folder, once per session."""

import shutil
from pathlib import Path

import pytest

from workflow.checkout import Checkout, once


@pytest.fixture(scope="session")
def published(built, tmp_path_factory) -> Path:
    """The folder of a checkout that published the run, and of the remote beside it."""

    def publish(folder: Path) -> None:
        checkout = built.copy(folder / "checkout")
        checkout.git("init", "--quiet", "--initial-branch=main")
        checkout.dvc("remote", "add", "--default", "storage", str(folder / "remote"))
        checkout.build("results/micro/publish")
        checkout.commit_all()

    return once(tmp_path_factory, "published", publish)


@pytest.fixture
def checkout(published, tmp_path, monkeypatch) -> Checkout:
    """A copy of it to change, remote and all, in which the test works."""
    shutil.copytree(published, tmp_path, symlinks=True, dirs_exist_ok=True)
    checkout = Checkout(tmp_path / "checkout")
    checkout.edit(".dvc/config", str(published), str(tmp_path))
    monkeypatch.chdir(checkout.folder)
    return checkout
