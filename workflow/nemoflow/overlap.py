"""Whether a text holds an item of an evaluation, by the rule of GPT-3.

Words are runs of letters and digits of the text in NFKC, without case; whatever stands between them
does not count. A text overlaps an item when 13 successive words of the item stand in it in a row.
An item of fewer words overlaps only a text that has just these words (Brown et al. 2020, appendix
C: 13 words are the most that they compare). What is written without blanks is one word as far as it
goes.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable

import numpy as np

from nemoflow.splits import point

SPAN = 13  # words
WORD = re.compile(r"[^\W_]+")
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: no bit of a product is lost


def words_of(text: str) -> list[str]:
    """The words that are compared."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Items:
    """Texts of items, of which 8 bytes for each run of 13 words stay in memory.

    `count` is how many texts have words at all. Hashes of 64 bits stand for the runs.
    """

    def __init__(self, texts: Iterable[str]):
        self.count = 0
        self._hashes: dict[str, int] = {}
        self._short: set[tuple[str, ...]] = set()
        spans = [np.zeros(0, np.uint64)]
        for words in map(words_of, texts):
            self.count += bool(words)
            for word in words:
                if word not in self._hashes:
                    self._hashes[word] = point(0, word)
            if len(words) >= SPAN:
                spans.append(self._spans(words))
            elif words:
                self._short.add(tuple(words))
        self._known = np.unique(np.concatenate(spans))

    @classmethod
    def union(cls, parts: Collection["Items"]) -> "Items":
        """All of these together: what overlaps one of them overlaps the union."""
        whole, known = cls(()), [part._known for part in parts]
        for part in parts:
            whole.count += part.count
            whole._hashes |= part._hashes
            whole._short |= part._short
        whole._known = np.unique(np.concatenate([whole._known, *known]))
        return whole

    def overlaps(self, text: str) -> bool:
        """Whether a text holds one of the items."""
        words = words_of(text)
        if len(words) < SPAN:
            return tuple(words) in self._short
        found = self._spans(words)
        places = np.searchsorted(self._known, found)
        inside = places < len(self._known)
        return bool((self._known[places[inside]] == found[inside]).any())

    def _spans(self, words: list[str]) -> np.ndarray:
        """A hash of every run of SPAN words, uint64[words - SPAN + 1]; unknown words count as 0."""
        hashes = np.fromiter((self._hashes.get(word, 0) for word in words), np.uint64, len(words))
        count = len(words) - SPAN + 1
        total = np.zeros(count, np.uint64)
        for place in range(SPAN):
            total = total * FACTOR + hashes[place : place + count]
        return total
