"""Which multiples sequences are padded to."""

import numpy as np
import pytest

from nemoflow import padding


@pytest.mark.parametrize(
    ("context", "tensor", "sequence", "multiple"),
    [
        (1, 1, False, 1),
        (1, 8, False, 1),
        (1, 4, True, 4),
        (2, 1, False, 4),
        (4, 2, True, 8),
        (2, 8, False, 4),
        (2, 8, True, 16),
        (2, 3, True, 12),
        (16, 2, True, 32),
    ],
)
def test_multiples(context, tensor, sequence, multiple):
    assert padding.multiple(context, tensor, sequence) == multiple


def test_padded_lengths():
    lengths = np.arange(1, 30)
    assert padding.padded(lengths, 1).tolist() == lengths.tolist()
    stored = padding.padded(lengths, 4)
    assert (
        ((stored - 1) % 4 == 0).all() and (stored >= lengths).all() and (stored < lengths + 4).all()
    )
    for size in range(1, 30):
        assert padding.padded([padding.longest(size, 4)], 4)[0] <= size
        assert padding.padded([padding.longest(size, 4) + 1], 4)[0] > size
