"""What becomes of the sequences of a source before any is chosen: cut, split, dropped; counted."""

from dataclasses import dataclass

import numpy as np

from nemoflow.spool import Spool

NEVER, TOO_LONG, CUT_OFF = "no_trained_tokens", "too_long", "trained_tokens_cut_off"


@dataclass(frozen=True)
class Pieces:
    """What may be packed of a source.

    int64[n]: the sequence that a piece is of, its place in the spool's tokens, and its tokens.
    `rows` and `sequences` say what was dropped, by reason; `cut` counts sequences that lost their
    end, `split` those that became several pieces, `empty` the pieces of these that trained nothing.
    """

    sequence: np.ndarray
    start: np.ndarray
    length: np.ndarray
    rows: dict[str, int]
    sequences: dict[str, int]
    cut: int
    split: int
    empty: int


def cut(spool: Spool, longest: int, too_long: str) -> Pieces:
    """Fit sequences into `longest` tokens by truncate, drop or split.

    Pieces of a split sequence overlap by a token: the last of one is the first of the next, which
    predicts it no more. So every trained token is predicted once.
    """
    told = spool.sequences
    long = told["length"] > longest
    reason = np.where(told["trained"] == 0, 1, 0)
    if too_long == "drop":
        reason[long & (reason == 0)] = 2
    elif too_long == "truncate":
        reason[(told["first"] >= longest) & (reason == 0)] = 3
    kept = np.flatnonzero(reason == 0)
    start, length = told["start"][kept], told["length"][kept].astype(np.int64)
    dropped = _dropped(told["row"], reason, spool.rows)
    many = int(long[kept].sum())
    if too_long != "split":
        cut = many if too_long == "truncate" else 0
        return Pieces(kept, start, np.minimum(length, longest), *dropped, cut, 0, 0)
    *pieces, empty = _split(spool.masks, kept, start, length, longest)
    return Pieces(*pieces, *dropped, 0, many, empty)


def _dropped(
    row: np.ndarray, reason: np.ndarray, rows: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Rows and sequences by reason; a row is dropped when all of its sequences are.

    The reason of its first one then stands for it.
    """
    lives = np.bincount(row[reason == 0], minlength=rows) > 0
    first = np.flatnonzero(np.append(True, row[1:] != row[:-1])[: len(row)])
    dead = reason[first[~lives[row[first]]]]
    return _by_reason(dead), _by_reason(reason)


def _by_reason(reason: np.ndarray) -> dict[str, int]:
    counts = np.bincount(reason, minlength=4)
    named = enumerate((NEVER, TOO_LONG, CUT_OFF), start=1)
    return {name: int(counts[i]) for i, name in named if counts[i]}


def _split(
    masks: np.ndarray, sequence: np.ndarray, start: np.ndarray, length: np.ndarray, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(sequence, start, length) of the pieces that train something, and how many do not."""
    step = longest - 1
    counts = np.where(length > longest, -(-(length - 1) // step), 1)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    start = np.repeat(start, counts) + number * step
    length = np.minimum(np.repeat(length, counts) - number * step, longest)
    trains = np.ones(len(start), bool)
    for index in np.flatnonzero(np.repeat(counts > 1, counts)).tolist():
        trains[index] = masks[start[index] + 1 : start[index] + length[index]].any()
    sequence = np.repeat(sequence, counts)
    return sequence[trains], start[trains], length[trains], int((~trains).sum())
