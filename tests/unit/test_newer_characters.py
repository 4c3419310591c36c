"""Which texts hold characters that tokenizers' and gigatoken's Unicode tables see differently."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

import small_encoders
from nemoflow import encoding, gate
from nemoflow.newer_characters import RANGES, is_newer, texts_with_newer
from nemoflow.vocabulary import Folder

ADDED = [code for first, last in RANGES for code in range(first, last + 1)]
EDGES = [edge for each in RANGES for edge in (each[0] - 1, *each, each[1] + 1)]


def around(code):
    return "a{0}b B{0}B1{0}2{0} {0}".format(chr(code)).encode()


def test_the_tables_of_tokenizers_know_none_of_them():
    unassigned = pre_tokenizers.Split(Regex(r"\p{Cn}+"), "removed")
    assert unassigned.pre_tokenize_str("".join(map(chr, ADDED))) == []
    assert unassigned.pre_tokenize_str("a")


@pytest.mark.parametrize(("regex", "stride"), [(small_encoders.NEMOTRON, 37), (None, 101)])
def test_every_other_character_is_the_same_to_both(tmp_path, regex, stride):
    change = small_encoders.joined_across
    folder = Folder(small_encoders.byte_level(tmp_path, change, regex))
    codes = [*range(0, 0xD800, stride), *range(0xE000, 0x110000, stride), *range(0x80, 0x600)]
    texts = [around(code) for code in codes if not is_newer(code)]
    backend = encoding.Gigatoken(folder, 1 << 30)._together  # without what is made up for
    ours = backend(b"</s>".join([*texts, b""]), len(texts))
    assert gate.difference(texts, ours, encoding.exact(folder).encode(texts)) is None


def test_those_characters_are_not(tmp_path):
    change = small_encoders.joined_across
    folder = Folder(small_encoders.byte_level(tmp_path, change, small_encoders.NEMOTRON))
    texts = [around(code) for code in ADDED[::5]]
    encoder, exact = encoding.Gigatoken(folder, 1 << 30), encoding.exact(folder)
    raw = encoder._together(b"</s>".join([*texts, b""]), len(texts))
    assert gate.difference(texts, raw, exact.encode(texts)) is not None
    assert gate.difference(texts, encoder.encode(texts), exact.encode(texts)) is None


def found(texts):
    joined = "".join(texts).encode()
    return texts_with_newer(joined, np.cumsum([len(text.encode()) for text in texts]))


def test_the_edges_of_all_ranges():
    for code in EDGES:
        inside = any(first <= code <= last for first, last in RANGES)
        assert is_newer(code) == inside
        assert found(["a", f"x{chr(code)}", chr(code), "b"]) == ([1, 2] if inside else [])


MANY = st.one_of(st.characters(codec="utf-8"), st.sampled_from(ADDED).map(chr), st.just("a"))


@settings(max_examples=50)
@given(st.lists(st.text(MANY, max_size=6), max_size=8))
def test_just_the_texts_that_hold_one_are_found(texts):
    pattern = re.compile(f"[{''.join(map(chr, ADDED))}]")
    assert found(texts) == [i for i, text in enumerate(texts) if pattern.search(text)]
