"""What becomes of sequences that are too long, or train nothing."""

import numpy as np
import pytest

from nemoflow.cutting import cut
from nemoflow.spool import Spool
from small_spool import spool

SHORT = ([1, 2, 3], [0, 0, 1])
LONG = ([1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 0, 0, 0, 0, 0, 1, 1])
LATE = ([1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 1])
NEVER = ([1, 2], [1, 0])


@pytest.fixture
def found(tmp_path):
    """The pieces of four rows, the second of two sequences."""
    given = Spool(spool(tmp_path / "a", [[SHORT], [LONG, NEVER], [LATE], [NEVER, LATE]]))
    return lambda too_long: cut(given, 4, too_long)


def test_truncate(found):
    pieces = found("truncate")
    assert pieces.sequence.tolist() == [0, 1] and pieces.length.tolist() == [3, 4]
    assert pieces.sequences == {"no_trained_tokens": 2, "trained_tokens_cut_off": 2}
    assert pieces.rows == {"no_trained_tokens": 1, "trained_tokens_cut_off": 1}
    assert (pieces.cut, pieces.split, pieces.empty) == (1, 0, 0)


def test_drop(found):
    pieces = found("drop")
    assert pieces.sequence.tolist() == [0]
    assert pieces.sequences == {"no_trained_tokens": 2, "too_long": 3}
    assert pieces.rows == {"no_trained_tokens": 1, "too_long": 2}


def test_split_overlaps_by_a_token(found):
    pieces = found("split")
    assert pieces.sequence.tolist() == [0, 1, 1, 3, 5]
    assert pieces.start.tolist() == [0, 3, 9, 17, 25]
    assert pieces.length.tolist() == [3, 4, 3, 3, 3]
    assert pieces.sequences == {"no_trained_tokens": 2} and pieces.rows == {}
    assert (pieces.split, pieces.empty) == (3, 3)


def test_split_predicts_every_trained_token_once(tmp_path):
    random = np.random.default_rng(0)
    rows = [
        [(np.arange(n), (random.random(n) < 0.3).astype(int)) for n in random.integers(2, 40, 2)]
        for _ in range(50)
    ]
    given = Spool(spool(tmp_path / "a", rows))
    for longest in (2, 3, 7, 100):
        pieces = cut(given, longest, "split")
        spans = zip(pieces.start.tolist(), pieces.length.tolist(), strict=True)
        counted = np.zeros(len(given.masks), int)
        for start, length in spans:
            assert 2 <= length <= longest
            counted[start + 1 : start + length] += given.masks[start + 1 : start + length]
        wanted = given.masks.astype(int)
        wanted[given.sequences["start"]] = 0
        assert np.array_equal(counted, wanted)


def test_an_empty_spool(tmp_path):
    pieces = cut(Spool(spool(tmp_path / "a", [])), 4, "split")
    assert not len(pieces.start) and not pieces.rows
