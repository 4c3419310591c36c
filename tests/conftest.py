"""What tests of several folders need: a finished micro run, built once per session."""

import pytest

from workflow.checkout import Checkout


def pytest_addoption(parser):
    parser.addoption(
        "--write-golden",
        action="store_true",
        help="write tests/rules/golden.json from what the stages make now, instead of comparing",
    )


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Checkout:
    """A finished micro run; tests read it, or copy it before they change anything."""
    checkout = Checkout.fresh(tmp_path_factory.mktemp("built") / "checkout")
    checkout.build()
    return checkout


@pytest.fixture
def copy(built, tmp_path) -> Checkout:
    """A copy of the finished micro run to change."""
    return built.copy(tmp_path / "checkout")


@pytest.fixture
def fresh(tmp_path) -> Checkout:
    """A checkout with nothing built."""
    return Checkout.fresh(tmp_path / "checkout")
