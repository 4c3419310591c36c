"""Small files appear whole or not at all; equal values have equal digests."""

import hashlib
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow import files

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=10,
)


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_keys_is_not_part_of_a_value(value):
    assert files.canonical(value) == files.canonical(reordered(value))
    assert files.digest(value) == files.digest(reordered(value))


def test_a_digest_is_short_and_stays_the_same_for_ever():
    assert files.digest({"b": [1, 2.5, None], "a": "ü"}) == "703dceec79c30480"
    assert files.digest(4) != files.digest(4.0) != files.digest("4")


def test_what_json_has_no_word_for_is_refused(tmp_path):
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON"):
            files.digest(value)
        with pytest.raises(ValueError, match="JSON"):
            files.write_json(tmp_path / "x.json", value)
    assert list(tmp_path.iterdir()) == []


@given(values)
def test_json_comes_back_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


def test_folders_are_made_and_an_old_file_is_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    files.write_whole(path, "old")
    files.write_whole(str(path), b"new\xff")
    assert path.read_bytes() == b"new\xff"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]
    assert files.sha256_of(path) == hashlib.sha256(b"new\xff").hexdigest()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    files.write_whole(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
