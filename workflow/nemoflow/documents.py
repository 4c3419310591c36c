"""Texts of a corpus to its documents: token ids by split, as the corpus asks for them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from nemoflow.encoding import Encoder
from nemoflow.errors import UserError
from nemoflow.holdout import SPLITS, Holdout
from nemoflow.ledger import Ledger
from nemoflow.text_rows import Block
from nemoflow.vocabulary import Folder

FAILURES = (ValueError, TypeError, RuntimeError, OverflowError)  # of the tokenizers' libraries
SPECIAL = "special_token"


class Encoded(NamedTuple):
    """The documents of a block: of each split its ids, end to end, and their lengths, int32.

    `truncated` counts those that were cut.
    """

    ids: list[np.ndarray]
    lengths: list[np.ndarray]
    truncated: int
    ledger: Ledger


class Documents:
    """Makes documents of texts.

    `settings`: special_tokens (keep, split or drop: what becomes of a text that holds the string of
    a control token), max_doc_tokens (None: no limit; a document that is cut keeps its EOS),
    add_bos, add_eos.

    Raises:
        UserError: max_doc_tokens leaves no room for text, or the tokenizer has no BOS to add.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: Folder,
        settings: Mapping[str, Any],
        holdout: Holdout,
    ):
        self.encoder, self._holdout = encoder, holdout
        self._mode, self._with_eos = settings["special_tokens"], settings["add_eos"]
        self._bos = [folder.bos] if settings["add_bos"] else []
        self._room, most = None, settings["max_doc_tokens"]
        if most:
            self._room = most - len(self._bos) - self._with_eos
            if self._room < 1:
                raise UserError(f"max_doc_tokens {most} leaves no room for text beside BOS and EOS")
        self._names, self._eos = folder.specials, folder.eos
        self._lowest, self._highest = min(self._names, default=0), max(self._names, default=-1)

    def encode(self, block: Block) -> Encoded:
        """The documents of a block's texts."""
        try:
            ids, lengths = self.encoder.encode(block.texts)
        except FAILURES:
            failing = {i: "tokenizer_failure" for i in self._failing(block.texts)}
            block = block.drop(failing)
            ids, lengths = self.encoder.encode(block.texts)
        dropped: dict[int, str] = {}
        which, found = self._specials_in(ids, np.cumsum(lengths) - 1)
        if len(found):
            for number, count in zip(*np.unique(found, return_counts=True), strict=True):
                block.ledger.note(f"{SPECIAL} {self._names[int(number)]}", int(count))
            if self._mode == "drop":
                dropped = dict.fromkeys(np.unique(which).tolist(), SPECIAL)
            elif self._mode == "split":
                ids, lengths = self._without_specials(block, ids, lengths, which)
        dropped |= dict.fromkeys(np.flatnonzero(lengths == 1).tolist(), "no_tokens")
        if dropped:
            left = np.ones(len(lengths), bool)
            left[list(dropped)] = False
            ids, lengths, block = ids[np.repeat(left, lengths)], lengths[left], block.drop(dropped)
        ids, lengths, truncated = self._cut(ids, lengths)
        ids, lengths = self._framed(ids, lengths)
        return self._by_split(block, ids, lengths, truncated)

    def _failing(self, texts: list[bytes]) -> list[int]:
        """The places of texts that the tokenizer cannot encode."""
        found = []
        for i, text in enumerate(texts):
            try:
                self.encoder.encode([text])
            except FAILURES:
                found.append(i)
        return found

    def _specials_in(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(texts that hold control tokens, those tokens), one entry for each that occurs.

        `ends` are the places of the EOS that every text was given, which do not count.
        """
        near = ids <= self._highest  # one pass over all ids; such tokens are rare
        if self._lowest:
            near &= ids >= self._lowest
        if np.count_nonzero(near) == len(ends) and self._eos in self._names:
            return ends[:0], ids[:0]
        places = np.flatnonzero(near)
        known = np.fromiter(self._names, np.int32, len(self._names))
        places = places[np.isin(ids[places], known)]
        places = places[~np.isin(places, ends)]
        return np.searchsorted(ends, places), ids[places]

    def _without_specials(
        self, block: Block, ids: np.ndarray, lengths: np.ndarray, which: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same with control tokens in the texts taken apart into ordinary ones."""
        documents = np.split(ids, np.cumsum(lengths)[:-1])
        for i in np.unique(which).tolist():
            documents[i] = self.encoder.ordinary(block.texts[i])
        return np.concatenate(documents), np.fromiter(map(len, documents), np.int64, len(documents))

    def _cut(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Documents of at most the room that there is, and the EOS; how many were longer."""
        if self._room is None or not (long := lengths - 1 > self._room).any():
            return ids, lengths, 0
        within = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        kept = (within < self._room) | (within == np.repeat(lengths - 1, lengths))
        return ids[kept], np.minimum(lengths, self._room + 1), int(long.sum())

    def _framed(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Documents with BOS and EOS as the corpus asks; they come with the EOS."""
        if not self._with_eos:
            ids, lengths = np.delete(ids, np.cumsum(lengths) - 1), lengths - 1
        if self._bos:
            ids, lengths = np.insert(ids, np.cumsum(lengths) - lengths, self._bos), lengths + 1
        return ids, lengths

    def _by_split(
        self, block: Block, ids: np.ndarray, lengths: np.ndarray, truncated: int
    ) -> Encoded:
        codes = self._holdout.codes(block.path, block.offsets)
        split_lengths = [lengths[codes == code].astype("<i4") for code in range(len(SPLITS))]
        if not codes.any():
            return Encoded([ids, ids[:0], ids[:0]], split_lengths, truncated, block.ledger)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        runs: list[list[np.ndarray]] = [[ids[:0]] for _ in SPLITS]
        for first, last in pairwise(edges):  # documents of one split, side by side
            runs[codes[first]].append(ids[ends[first] : ends[last]])
        return Encoded(list(map(np.concatenate, runs)), split_lengths, truncated, block.ledger)
