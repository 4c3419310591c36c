"""Which prompts are held out: whole groups of conversations, over all sources of a mixture."""

from collections.abc import Sequence

import numpy as np

from nemoflow.splits import quota


def hold_out(prompts: Sequence[np.ndarray], fraction: float) -> list[np.ndarray]:
    """bool[n] of each source's conversations: held out, with all that share their prompt.

    `prompts` are the seeded hashes uint64[n] of each source; prompts are tried from the lowest
    on. A source's quota is `splits.quota` of its conversations. A prompt is taken where that
    brings the sources closer to their quotas in sum; a source that then has none takes the prompt
    with the fewest conversations. No source loses its last one.
    """
    groups = _Groups(prompts, fraction)
    for source in np.argsort([len(own) for own in prompts], kind="stable").tolist():
        groups.fill(source)
    return groups.out_of()


class _Groups:
    """Conversations by prompt; the prompts numbered from 0 in the order of their hashes.

    Of each source: `short`, how many conversations its quota still lacks, and `left`, how many
    are not held out.
    """

    def __init__(self, prompts: Sequence[np.ndarray], fraction: float) -> None:
        self._sizes = [len(own) for own in prompts]
        distinct, self._group = np.unique(np.concatenate(prompts), return_inverse=True)
        count, owner = len(prompts), np.repeat(np.arange(len(prompts)), self._sizes)
        pairs, self._rows = np.unique(self._group * count + owner, return_counts=True)
        self._of, self._owner = np.divmod(pairs, count)
        self._begin = np.searchsorted(self._of, np.arange(len(distinct) + 1))
        self.short = [quota(size, fraction) for size in self._sizes]
        self.left = list(self._sizes)
        self._out = np.zeros(len(distinct), bool)

    def fill(self, source: int) -> None:
        """Hold out for a source what it is short of."""
        own = np.flatnonzero(self._owner == source)
        for group in self._of[own].tolist():
            if self.short[source] <= 0:
                return
            self._take(group, unless_worse=True)
        if self.left[source] == self._sizes[source]:
            for group in self._of[own[np.argsort(self._rows[own], kind="stable")]].tolist():
                if self._take(group, unless_worse=False):
                    return

    def _take(self, group: int, unless_worse: bool) -> bool:
        if self._out[group]:
            return False
        span = slice(self._begin[group], self._begin[group + 1])
        held = list(zip(self._owner[span].tolist(), self._rows[span].tolist(), strict=True))
        if any(rows == self.left[source] for source, rows in held):
            return False
        change = sum(abs(self.short[source] - n) - abs(self.short[source]) for source, n in held)
        if unless_worse and change >= 0:
            return False
        self._out[group] = True
        for source, rows in held:
            self.short[source] -= rows
            self.left[source] -= rows
        return True

    def out_of(self) -> list[np.ndarray]:
        """Of each source bool[n]."""
        return np.split(self._out[self._group], np.cumsum(self._sizes)[:-1])
