"""Spools of a few conversations."""

import numpy as np

from nemoflow.spool import SpoolWriter, conversation

EOS = 7


def spool(folder, rows, eos_id=EOS):
    """A spool of rows, lists of (ids, mask) each; its folder."""
    with SpoolWriter(folder, eos_id) as writer:
        for row in rows:
            given = [(np.array(ids, np.int32), np.array(mask, np.uint8)) for ids, mask in row]
            writer.add(conversation(given))
    return folder


def numbered(count, first=100, length=4):
    """Rows of one sequence, no two with the same tokens; all but two tokens are trained."""
    return [[([first + i] * length, [0, 0] + [1] * (length - 2))] for i in range(count)]
