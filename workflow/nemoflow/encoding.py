"""Texts to token ids: gigatoken behind its gate, Hugging Face, SentencePiece, tiktoken.

An encoder takes UTF-8 texts and returns (ids int32[sum of lengths], lengths int64[texts]): no
special tokens are added, but every text ends with the EOS. Which library does it changes nothing.
"""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np

from nemoflow import gate
from nemoflow.gate import Encoded
from nemoflow.newer_characters import texts_with_newer
from nemoflow.vocabulary import HUGGINGFACE, SENTENCEPIECE, Folder

# A worker is a process of its own: threads of the libraries would fight each other.
os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CACHE = 160 << 20  # bytes that gigatoken's may grow to in each process
PAGE = os.sysconf("SC_PAGE_SIZE")


class Lists:
    """Encodes with a library that gives a list of ids for each text."""

    def __init__(
        self,
        name: str,
        eos: int,
        encode: Callable[[list[str]], Sequence[Sequence[int]]],
        ordinary: Callable[[str], Sequence[int]],
    ):
        self.name, self._eos, self._encode, self._ordinary = name, eos, encode, ordinary

    def encode(self, texts: Sequence[bytes]) -> Encoded:
        """(ids, lengths) of some texts, the EOS after each."""
        found = self._encode([text.decode() for text in texts])
        lengths = np.fromiter((len(ids) + 1 for ids in found), np.int64, len(found))
        flat = chain.from_iterable(chain(ids, (self._eos,)) for ids in found)
        return np.fromiter(flat, np.int32, int(lengths.sum())), lengths

    def encode_parts(self, texts: Sequence[bytes]) -> Encoded:
        """(ids, lengths) of some texts as they are, nothing after them."""
        found = self._encode([text.decode() for text in texts])
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        return np.fromiter(chain.from_iterable(found), np.int32, int(lengths.sum())), lengths

    def ordinary(self, text: bytes) -> np.ndarray:
        """The ids of one text in which strings of special tokens are text like any other."""
        return np.array([*self._ordinary(text.decode()), self._eos], np.int32)

    def rest(self) -> None:
        """Between two blocks: nothing to do."""


class Gigatoken:
    """Encodes many texts at once, the EOS's own text between them.

    Special tokens in a text are found before anything else, so what stands between two of them is
    encoded by itself: `gate.can_separate` says where that holds. Released gigatoken never empties
    its cache (as of 0.10.0): it is loaded anew when this process has grown by `most` bytes.
    """

    def __init__(self, folder: Folder, most: int):
        import gigatoken

        self.name = f"gigatoken {version('gigatoken')}"
        self._load = lambda: gigatoken.Tokenizer.from_json(folder.json).backend
        self._backend, self._folder, self._most = self._load(), folder, most
        self._eos, self._separator = folder.eos, folder.eos_text.encode()
        self._joined = gate.can_separate(folder.eos_text, folder.told.added_tokens)
        self._base = 0

    def encode(self, texts: Sequence[bytes]) -> Encoded:
        """(ids, lengths) of some texts, the EOS after each."""
        joined = self._separator.join([*texts, b""])
        ids, lengths = self._together(joined, len(texts)) or self._apart(texts)
        step = len(self._separator)
        newer = texts_with_newer(joined, np.cumsum([len(text) + step for text in texts]))
        if not newer:
            return ids, lengths
        documents = np.split(ids, np.cumsum(lengths)[:-1])
        for i in newer:
            documents[i] = self.exact.encode([texts[i]])[0]
        return np.concatenate(documents), np.fromiter(map(len, documents), np.int64, len(texts))

    def encode_parts(self, texts: Sequence[bytes]) -> Encoded:
        """(ids, lengths) of some texts as they are, nothing after them."""
        found = [self._backend.encode(text).view(np.int32) for text in texts]
        for i in texts_with_newer(b"".join(texts), np.cumsum(list(map(len, texts)))):
            found[i] = self.exact.encode_parts([texts[i]])[0]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        return np.concatenate([np.zeros(0, np.int32), *found]), lengths

    def _together(self, joined: bytes, count: int) -> Encoded | None:
        """The same of texts with the EOS after each; None where a text itself holds the EOS."""
        if not self._joined:
            return None
        ids = self._backend.encode(joined).view(np.int32)
        ends = np.flatnonzero(ids == self._eos)
        return (ids, np.diff(ends, prepend=-1)) if len(ends) == count else None

    def _apart(self, texts: Sequence[bytes]) -> Encoded:
        end = np.array([self._eos], np.int32)
        found = [self._backend.encode(text).view(np.int32) for text in texts]
        flat = np.concatenate([end[:0], *(part for ids in found for part in (ids, end))])
        return flat, np.fromiter((len(ids) + 1 for ids in found), np.int64, len(found))

    @cached_property
    def exact(self) -> "Lists":
        """The tokenizer's own library, for what is not gigatoken's."""
        return exact(self._folder)

    def ordinary(self, text: bytes) -> np.ndarray:
        """The ids of one text in which strings of special tokens are text like any other."""
        return self.exact.ordinary(text)

    def rest(self) -> None:
        """Between two blocks: give back the cache where it has grown too large."""
        grown = resident()
        self._base = self._base or grown
        if grown - self._base > self._most:
            self._backend = None  # first: both at once would be the peak
            self._backend = self._load()
            self._base = max(self._base, resident() - self._most // 4)


Encoder = Gigatoken | Lists


def resident() -> int:
    """Bytes of memory that this process holds (proc(5), statm); 0 where that is not told."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except FileNotFoundError:
        return 0


def exact(folder: Folder) -> Lists:
    """The encoder of the tokenizer's own library."""
    if folder.kind == HUGGINGFACE:
        return huggingface(folder)
    return sentencepiece(folder) if folder.kind == SENTENCEPIECE else tiktoken(folder)


def refusal(folder: Folder) -> str | None:
    """Why gigatoken does not encode for a tokenizer, as far as can be told without its loading."""
    if folder.kind != HUGGINGFACE:
        return f"it is for tokenizer.json, not for {folder.file.name}"
    if find_spec("gigatoken") is None:
        return "it is not installed"
    return gate.refusal(folder.told)


def huggingface(folder: Folder) -> Lists:
    """The encoder of a tokenizer.json."""
    plain: list[Any] = []  # loaded when a text asks for it

    def ordinary(text: str) -> list[int]:
        if not plain:
            plain.append(Folder(folder.path).huggingface)
            plain[0].encode_special_tokens = True
        return plain[0].encode(text, add_special_tokens=False).ids

    loaded = folder.huggingface
    return Lists(
        f"tokenizers {version('tokenizers')}",
        folder.eos,
        lambda texts: [e.ids for e in loaded.encode_batch(texts, add_special_tokens=False)],
        ordinary,
    )


def sentencepiece(folder: Folder) -> Lists:
    """The encoder of a SentencePiece model; control symbols in a text are text to it."""
    model = folder.sentencepiece
    name = f"sentencepiece {version('sentencepiece')}"
    return Lists(name, folder.eos, lambda texts: model.encode(texts, num_threads=1), model.encode)


def tiktoken(folder: Folder) -> Lists:
    """The encoder of a .tiktoken file."""
    encoding = folder.tiktoken
    return Lists(
        f"tiktoken {version('tiktoken')}",
        folder.eos,
        lambda texts: encoding.encode_batch(texts, num_threads=1, allowed_special="all"),
        encoding.encode_ordinary,
    )
