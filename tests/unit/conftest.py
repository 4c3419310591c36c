"""What several unit tests need: a small tokenizer, made once."""

import pytest

import small_tokenizer


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory):
    """A tokenizer folder; see small_tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer.make(folder)
    return folder
