"""Whether a text holds an item of an evaluation, by the rule of GPT-3.

Words are runs of letters and digits of the text in NFKC, without case; whatever stands between them
does not count. A text overlaps an item when 13 successive words of the item stand in it in a row.
An item of fewer words overlaps only a text that has just these words (Brown et al. 2020, appendix
C: 13 words are the most that they compare). What is written without blanks is one word as far as it
goes.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

SPAN = 13  # words
COMMON = 10  # items of a task: what more of them share is their prompt's, not their own
SPARSE = 16  # places for each run that is known, so that few others need a search
AT_ONCE = 1 << 18  # bytes; a longer word counts as several
BETWEEN = re.compile(r"[^\w\x00-\x7f]+")  # characters of no word, those of ASCII apart
PLAIN = bytes(ord(chr(i).lower()) if chr(i).isalnum() else ord(" ") for i in range(128))
PLAIN += bytes(range(128, 256))
FACTOR = 0x9E3779B97F4A7C15  # odd: it has an inverse, and no bit of a product is lost
ONE, TWO, FOUR = (np.uint64(pow(FACTOR, power, 2**64)) for power in (1, 2, 4))
POWERS = np.cumprod(np.full(AT_ONCE + 1, ONE))
INVERSES = np.cumprod(np.full(AT_ONCE + 1, pow(FACTOR, -1, 2**64), np.uint64))


def plain(text: str) -> bytes:
    """The words that are compared, each blank or more apart from the next."""
    if not text.isascii():
        text = BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return text.encode().translate(PLAIN)


class Runs:
    """The runs of SPAN words in words as `plain` writes them.

    `hashes` uint64[words - SPAN + 1] are the sums of the words' hashes, each times a power of
    FACTOR; empty where there are fewer words.
    """

    def __init__(self, content: bytes):
        self._content = content
        found = list(_words(content))
        self._begins, self._ends, one = (np.concatenate(each) for each in zip(*found, strict=True))
        two = one[:-1] * ONE + one[1:]
        four = two[:-2] * TWO + two[2:]
        eight = four[:-4] * FOUR + four[4:]
        twelve = eight[:-4] * FOUR + four[8:]
        self.hashes = twelve[:-1] * ONE + one[12:]

    def text(self, place: int) -> str:
        """The words of a run."""
        run = self._content[self._begins[place] : self._ends[place + SPAN - 1]]
        return " ".join(run.decode(errors="replace").split())


def _words(content: bytes) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(where words begin, where they end, their hashes uint64[words]) of a piece at a time.

    A word's hash is the sum of its bytes times powers of FACTOR, which is the difference of two
    sums over all bytes before, and then mixed (splitmix64, Steele, Lea and Flood 2014).
    """
    begin = 0
    while begin < len(content) or not begin:
        end = begin + AT_ONCE
        if end < len(content):
            end = content.rfind(b" ", begin, end) + 1 or end
        piece = np.frombuffer(content[begin:end], np.uint8)
        edges = np.flatnonzero(np.diff(piece != ord(" "), prepend=False, append=False))
        begins, ends = edges[::2], edges[1::2]
        sums = np.zeros(len(piece) + 1, np.uint64)
        np.cumsum(piece * POWERS[: len(piece)], out=sums[1:])
        mixed = (sums[ends] - sums[begins]) * INVERSES[begins]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        yield begins + begin, ends + begin, mixed ^ (mixed >> np.uint64(31))
        begin = end


class Items:
    """Texts of items, of which 8 bytes for each run of 13 words stay in memory.

    `count` is how many texts have words at all. Hashes of 64 bits stand for the runs.
    """

    def __init__(self, texts: Iterable[str]):
        self.count = 0
        self._short: set[bytes] = set()
        runs = [np.zeros(0, np.uint64)]
        for content in map(plain, texts):
            words = content.split()
            self.count += bool(words)
            if len(words) >= SPAN:
                runs.append(Runs(content).hashes)
            elif words:
                self._short.add(b" ".join(words))
        self._known = np.unique(np.concatenate(runs))

    @classmethod
    def union(cls, parts: Collection["Items"]) -> "Items":
        """All of these together: what overlaps one of them overlaps the union."""
        whole, known = cls(()), [part._known for part in parts]
        for part in parts:
            whole.count += part.count
            whole._short |= part._short
        whole._known = np.unique(np.concatenate([whole._known, *known]))
        return whole

    def overlaps(self, text: str) -> bool:
        """Whether a text holds one of the items."""
        content = plain(text)
        if (short := shorter(content)) is not None:
            return short in self._short
        found = Runs(content).hashes
        places = np.searchsorted(self._known, found)
        inside = places < len(self._known)
        return bool((self._known[places[inside]] == found[inside]).any())


def shorter(content: bytes) -> bytes | None:
    """All the words of what has fewer than SPAN; None for what has more."""
    words = content.split(maxsplit=SPAN - 1)
    return b" ".join(words) if len(words) < SPAN else None


class Index:
    """The items of tasks, and which of them a text holds.

    `tasks` are the texts of each task's items, one an item. Runs of words, or whole short texts,
    that more than COMMON items of a task share count for none of them. `short` is how many items
    of each task have fewer than SPAN words: they are found only where a text is nothing else.
    """

    def __init__(self, tasks: Mapping[str, Sequence[str]]):
        self.short: dict[str, int] = {}
        self._names: list[tuple[str, int]] = []
        self._whole: dict[bytes, list[int]] = {}
        runs, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        for task, texts in tasks.items():
            contents = list(map(plain, texts))
            whole = {number: shorter(content) for number, content in enumerate(contents)}
            self.short[task] = sum(words is not None for words in whole.values())
            self._add_whole(whole)
            for number, found in own_runs(contents):
                runs.append(found)
                owners.append(np.full(len(found), number + len(self._names), np.int32))
            self._names += [(task, number) for number in range(len(texts))]
        every, owner = np.concatenate(runs), np.concatenate(owners)
        order = np.argsort(every, kind="stable")
        self._known, first = np.unique(every[order], return_index=True)
        self._first, self._owners = [*first.tolist(), len(order)], owner[order]
        self._shift = np.uint64(64 - max(16, (len(self._known) * SPARSE).bit_length()))
        self._maybe = np.zeros(2 ** (64 - int(self._shift)), bool)
        self._maybe[self._known >> self._shift] = True

    def find(self, text: str) -> dict[tuple[str, int], str]:
        """{(task, number of the item from 0): words that it shares with the text}."""
        content = plain(text)
        if (short := shorter(content)) is not None:
            owners = self._whole.get(short, ())
            return {self._names[owner]: short.decode() for owner in owners}
        runs = Runs(content)
        places = np.flatnonzero(self._maybe[runs.hashes >> self._shift])
        if not len(places):
            return {}
        at = np.searchsorted(self._known, runs.hashes[places])
        at = np.minimum(at, len(self._known) - 1)
        same = self._known[at] == runs.hashes[places]
        seen: dict[tuple[str, int], str] = {}
        for place, known in zip(places[same].tolist(), at[same].tolist(), strict=True):
            for owner in self._owners[self._first[known] : self._first[known + 1]].tolist():
                if self._names[owner] not in seen:
                    seen[self._names[owner]] = runs.text(place)
        return seen

    def _add_whole(self, whole: Mapping[int, bytes | None]) -> None:
        """Note the items of a task that are too short to have a run."""
        alike: dict[bytes, list[int]] = {}
        for number, words in whole.items():
            if words:
                alike.setdefault(words, []).append(number + len(self._names))
        for words, owners in alike.items():
            if len(owners) <= COMMON:
                self._whole.setdefault(words, []).extend(owners)


def own_runs(contents: Sequence[bytes]) -> list[tuple[int, np.ndarray]]:
    """(number, runs uint64[n]) of the items of a task that have runs which few others have."""
    runs = [
        (number, np.unique(Runs(content).hashes))
        for number, content in enumerate(contents)
        if shorter(content) is None
    ]
    every = np.concatenate([np.zeros(0, np.uint64), *(found for _, found in runs)])
    known, counts = np.unique(every, return_counts=True)
    common = known[counts > COMMON]
    return [(number, found[~np.isin(found, common)]) for number, found in runs]
