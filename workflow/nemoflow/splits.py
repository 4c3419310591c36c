"""Which documents are held out: a seeded choice that depends on nothing but the documents."""

import hashlib
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
POINTS = 1 << 64


def point(seed: int, *key: str | int | bytes) -> int:
    """A number in [0, 2**64), uniform over keys, that follows from seed and key alone."""
    hashed = hashlib.blake2b(str(seed).encode(), digest_size=8)
    for element in key:
        content = element if isinstance(element, bytes) else str(element).encode()
        hashed.update(b"%d:" % len(content) + content)
    return int.from_bytes(hashed.digest(), "little")


def points(seed: int, corpus: str, path: str, places: np.ndarray) -> np.ndarray:
    """The same for documents of a file by their places, uint64[places].

    The places go through splitmix64 (Steele, Lea and Flood 2014) from a start of the file's own.
    """
    z = places.astype(np.uint64) + np.uint64(1)
    z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(point(seed, corpus, path))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


def quota(count: int, fraction: float) -> int:
    """How many of `count` a held-out split takes: its fraction, at least one, never the last."""
    return min(max(1, round(count * fraction)), max(0, count - 1)) if fraction else 0


def hold_out(points: Mapping[Key, int], fractions: Mapping[str, float]) -> dict[Key, str]:
    """{key: split} of the keys with the lowest points, `quota` of them for each split in turn."""
    order = iter(sorted(points, key=lambda key: (points[key], str(key))))
    left, chosen = len(points), {}
    for split, fraction in fractions.items():
        for _ in range(min(quota(len(points), fraction), left - 1)):
            chosen[next(order)] = split
            left -= 1
    return chosen
