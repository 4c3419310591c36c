"""Sequences as text."""

import numpy as np
import pytest

import small_encoders
from nemoflow.shown import OTHER, RESET, TRAINED, legend, marked
from nemoflow.vocabulary import Folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(small_encoders.chat(tmp_path_factory.mktemp("chat")))


def ids(folder, *texts):
    """(ids, mask) of texts, every second one trained."""
    found = [folder.huggingface.encode(text, add_special_tokens=False).ids for text in texts]
    mask = [[number % 2] * len(each) for number, each in enumerate(found)]
    return np.array(sum(found, []), np.int32), np.array(sum(mask, []), np.uint8)


def test_what_is_trained_stands_apart(folder):
    given = ids(folder, "<|im_start|>user\n東京", " é<|im_end|>", "\n", "</think>")
    told = marked(folder, *given, colour=False)
    assert told == "<|im_start|>user\n東京⟦ é<|im_end|>⟧\n⟦</think>⟧"
    colours = marked(folder, *given, colour=True)
    assert colours.startswith(f"{OTHER}<|im_start|>user\n東京{RESET}{TRAINED} é<|im_end|>{RESET}")
    assert legend(False) == "in ⟦brackets⟧" and "green" in legend(True)


def test_nothing_trained_or_nothing_else(folder):
    numbers, mask = ids(folder, "abc")
    assert marked(folder, numbers, mask, colour=False) == "abc"
    assert marked(folder, numbers, mask + 1, colour=False) == "⟦abc⟧"
