"""Whether gigatoken may stand in for Hugging Face's tokenizers.

It is some fifty times as fast, and differs without a word on a dozen features of tokenizer.json:
normalizers, single_word, further members of a pre-tokenizer's sequence, saved truncation and more.
So a tokenizer.json passes only when all it has is on this list, and when both encode the same
texts alike: rows of the corpus itself, and strings made to be awkward.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from nemoflow.newer_characters import is_newer

STRESS = 300  # awkward strings of the self-test
PIECES = (
    *" \t\n\r\v\f\u0085\u00a0\u2003\u2028\u3000\u200b",
    *("The", "don't", "IT'S", "they'LL", "camelCase", "x86_64", "12345", "3.14", "==", "//!!"),
    *("naïve", "café", "cafe\u0301", "Ärger", "ﬁ", "²", "İstanbul", "\r\n\r\n", "..."),
    *("東京", "한국어", "हिन्दी", "العربية", "ไทย", "Ελλ", "👍🏽", "🇩🇪"),
)
Encoded = tuple[np.ndarray, np.ndarray]


class Added(msgspec.Struct):
    """An added token of tokenizer.json."""

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class Bpe(msgspec.Struct):
    """The model of tokenizer.json, as far as the gate asks."""

    type: str = "BPE"
    vocab: Any = None
    dropout: float | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    byte_fallback: bool = False


class TokenizerJson(msgspec.Struct):
    """A tokenizer.json, as far as the gate asks."""

    model: Bpe
    added_tokens: list[Added] = []
    normalizer: Any = None
    pre_tokenizer: Any = None
    truncation: Any = None
    padding: Any = None


def refusal(told: TokenizerJson) -> str | None:
    """The feature for which a tokenizer.json is not gigatoken's to encode, or None."""
    if why := unlisted(told.model):
        return why
    if told.normalizer is not None:
        return "it has a normalizer"
    if told.truncation is not None or told.padding is not None:
        return "it has truncation or padding"
    if not splits_alone(told.pre_tokenizer):
        return "its pre-tokenizer is not one split followed by bytes"
    if any(token.single_word for token in told.added_tokens):
        return "an added token matches single words only"
    if len({token.normalized for token in told.added_tokens}) > 1:
        return "its added tokens differ in `normalized`"
    for token in told.added_tokens:
        if told.model.vocab.get(token.content, token.id) != token.id:
            return f"{token.content} has two ids"
    return None


def unlisted(model: Bpe) -> str | None:
    """What a model has that is not on the list, or None."""
    if model.type != "BPE" or not isinstance(model.vocab, dict):
        return f"its model is {model.type}, not BPE"
    if model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix:
        return "its BPE has dropout, a prefix or a suffix"
    return "its BPE falls back to bytes" if model.byte_fallback else None


def splits_alone(pre: Any) -> bool:
    """Whether a pre-tokenizer is [Split by a regex, isolated; ByteLevel], or GPT-2's ByteLevel."""
    if not isinstance(pre, dict):
        return False
    members = pre.get("pretokenizers", []) if pre.get("type") == "Sequence" else [pre]
    *split, last = members or [{}]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return False
    if not split:
        return last.get("use_regex", True)
    (first, *more) = split
    return (
        not more
        and not last.get("use_regex", True)
        and first.get("type") == "Split"
        and "Regex" in first.get("pattern", {})
        and first.get("behavior") == "Isolated"
        and not first.get("invert", False)
    )


def can_separate(eos: str, added: Sequence[Added]) -> bool:
    """Whether the EOS between two texts is always found as itself, whatever the texts are.

    No other added token may hold it; none, itself included, may end with how it begins; and it
    takes no blanks away from the texts.
    """
    (own,) = [token for token in added if token.content == eos] or [None]
    if own is None or own.lstrip or own.rstrip:
        return False
    heads = tuple(eos[:size] for size in range(1, len(eos)))
    return not any(
        token.content.endswith(heads) or (eos in token.content and token is not own)
        for token in added
    )


def stress(added: Sequence[Added]) -> Iterator[bytes]:
    """Strings on which tokenizers differ: odd blanks, scripts, added tokens inside of words."""
    chosen = random.Random(7)
    tokens = [token.content for token in added[:40]]
    for number in range(STRESS):
        if number % 3:
            yield "".join(chosen.choices([*PIECES, *tokens], k=chosen.randint(1, 40))).encode()
        else:
            ranges = ((32, 0x250), (0x300, 0x370), (0x250, 0x3000), (0xAC00, 0xD7A4))
            points = (chosen.randrange(*chosen.choice(ranges)) for _ in range(30))
            yield "".join(chr(point) for point in points if not is_newer(point)).encode()


def difference(texts: Sequence[bytes], ours: Encoded, theirs: Encoded) -> bytes | None:
    """The first of some texts whose ids differ, or None."""
    (ids, lengths), (ids_too, lengths_too) = ours, theirs
    if np.array_equal(lengths, lengths_too) and np.array_equal(ids, ids_too):
        return None
    pairs = (np.split(each, np.cumsum(sizes)[:-1]) for each, sizes in (ours, theirs))
    for text, one, other in zip(texts, *pairs, strict=True):
        if not np.array_equal(one, other):
            return text
    return None
