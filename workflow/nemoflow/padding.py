"""How long a packed sequence may be and must be, so that its tokens divide among ranks.

A stored sequence of n tokens trains n - 1 positions: its inputs and labels are shifted by one.
"""

from math import lcm
from typing import Any

import numpy as np


def multiple(context: int, tensor: int, sequence: bool) -> int:
    """What must divide each sequence's positions: as Megatron-Bridge 0.6.2 derives it.

    Each context rank takes two equal pieces of every sequence, and with sequence parallelism these
    are cut again for the tensor ranks (training/config.py, ConfigContainer.validate).
    """
    pieces = context * tensor if sequence else 1
    return lcm(2 * context if context > 1 else 1, pieces)


def longest(pack_size: int, pad_multiple: int) -> int:
    """The most tokens of a sequence whose padded form fits into a packed row."""
    return (pack_size - 1) // pad_multiple * pad_multiple + 1


def padded(lengths: Any, pad_multiple: int) -> np.ndarray:
    """Tokens as stored: (length - 1) % multiple == 0; int64[n] from int[n]."""
    return -(-(np.asarray(lengths, np.int64) - 1) // pad_multiple) * pad_multiple + 1
