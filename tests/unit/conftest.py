"""What several unit tests need, made once: a small tokenizer, and all config."""

import pytest
from hypothesis import settings

import small_config
import small_encoders
import small_tokenizer
from nemoflow.config import Config

settings.register_profile("busy", deadline=None)  # a busy machine is no failure
settings.load_profile("busy")


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory):
    """A tokenizer folder; see small_tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer.make(folder)
    return folder


@pytest.fixture(scope="session")
def fast_tokenizer(tmp_path_factory):
    """A tokenizer folder that gigatoken encodes for; see small_encoders."""
    return small_encoders.byte_level(tmp_path_factory.mktemp("fast_tokenizer"))


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> Config:
    """All config of the product and of the tests, to read."""
    return Config(small_config.make(tmp_path_factory.mktemp("config")))


@pytest.fixture
def config_folder(tmp_path):
    """The same as files, to edit."""
    return small_config.make(tmp_path)


@pytest.fixture
def one_thread():
    """The same bytes on any machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, tiny_tokenizer):
    """What jobs of the local engine begin with; see local_jobs."""
    import torch

    import local_jobs

    torch.set_num_threads(1)
    return local_jobs.inputs(tmp_path_factory.mktemp("inputs"), tiny_tokenizer)


@pytest.fixture
def reward_by_length(monkeypatch):
    """Any reward that a random model sometimes earns: an even number of characters."""
    from nemoflow.engines.local.rewards import REWARDS

    monkeypatch.setitem(REWARDS, "boxed_math", lambda row, text: float(len(text) % 2 == 0))
