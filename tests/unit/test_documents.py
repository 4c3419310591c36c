"""Texts to documents: special tokens, BOS and EOS, the limit on length, splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_encoders
from nemoflow import encoding
from nemoflow.documents import Documents
from nemoflow.errors import UserError
from nemoflow.holdout import Holdout
from nemoflow.ledger import KEPT, Ledger
from nemoflow.text_rows import Block
from nemoflow.vocabulary import Folder
from small_corpus import SETTINGS

BOS, EOS, START, END = 1, 2, 3, 4
HELD = ["plain", "a</s>b", "<|im_start|>user<|im_end|>", "ends </", "</s></s>", "x<s>"]
NOTED = {"</s>": 3, "<s>": 1, "<|im_start|>": 1, "<|im_end|>": 1}


def block_of(texts, path="a.jsonl"):
    ledger, texts = Ledger(), [text.encode() for text in texts]
    sizes = np.array([len(text) + 12 for text in texts], np.int64)
    for size in sizes.tolist():
        ledger.count(path, KEPT, 1, size)
    return Block(path, texts, np.cumsum(sizes) - sizes, sizes, ledger)


@pytest.fixture(scope="module")
def both(fast_tokenizer):
    """(folder, the encoders of both libraries)."""
    folder = Folder(fast_tokenizer)
    return folder, (encoding.Gigatoken(folder, 1 << 30), encoding.exact(folder))


@pytest.fixture(params=["gigatoken", "huggingface"])
def make(request, both):
    """Makes the documents of texts with one library or the other."""
    folder, encoders = both
    encoder = encoders[request.param == "huggingface"]

    def run(texts, holdout=None, path="a.jsonl", **told):
        holdout = holdout or Holdout(1, "web", {"valid": 0.0, "test": 0.0})
        return Documents(encoder, folder, SETTINGS | told, holdout).encode(block_of(texts, path))

    return run


def split(encoded, which=0):
    ids, lengths = encoded.ids[which], encoded.lengths[which]
    assert lengths.dtype == np.int32 and lengths.sum() == len(ids)
    ends = np.cumsum(lengths)
    return [ids[end - n : end].tolist() for end, n in zip(ends, lengths, strict=True)]


def plain(text, folder):
    loaded = encoding.huggingface(Folder(folder))
    return loaded.ordinary(text.encode()).tolist()


def special(encoded):
    return {what.removeprefix("special_token "): n for what, n in encoded.ledger.noted.items()}


def test_special_tokens_are_kept_and_counted_by_their_text(make, fast_tokenizer):
    encoded = make(HELD)
    expected = encoding.exact(Folder(fast_tokenizer)).encode([text.encode() for text in HELD])
    assert encoded.ids[0].tolist() == expected[0].tolist()
    assert encoded.lengths[0].tolist() == expected[1].tolist()
    assert split(encoded)[4] == [EOS, EOS, EOS] and split(encoded)[2][0] == START
    assert special(encoded) == NOTED
    assert encoded.ledger.totals(encoded.ledger.rows)["dropped"] == {}


def test_special_tokens_are_taken_apart(make, fast_tokenizer):
    encoded = make(HELD, special_tokens="split")
    assert split(encoded) == [plain(text, fast_tokenizer) for text in HELD]
    assert special(encoded) == NOTED
    assert not set(encoded.ids[0].tolist()) & {BOS, START, END}


def test_texts_with_special_tokens_are_dropped(make, fast_tokenizer):
    encoded = make(HELD, special_tokens="drop")
    assert split(encoded) == [plain(text, fast_tokenizer) for text in ("plain", "ends </")]
    told = encoded.ledger.totals(encoded.ledger.rows)
    assert told == {"in": 6, "kept": 2, "dropped": {"special_token": 4}}
    assert encoded.ledger.first["special_token"][0] == f"a.jsonl, byte {len('plain') + 12}"
    assert special(encoded) == NOTED
    encoded.ledger.check("web", 0.0)  # a filter, no fault


def test_nothing_may_be_left_of_a_block(make):
    for encoded in (make(["a</s>", "<s>"], special_tokens="drop", add_bos=True), make([])):
        assert [len(ids) for ids in encoded.ids] == [0, 0, 0] == list(map(len, encoded.lengths))


PIECES = ["</s>", "</", "s>", "<s>", "<", "<|im_start|>", "<|im_", "end|>", "a", " ", "fox", "\n"]


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join), max_size=6))
def test_both_libraries_give_the_same_whatever_stands_in_texts(both, texts):
    folder, encoders = both
    given = SETTINGS | {"max_doc_tokens": 9}
    holdout = Holdout(1, "web", {"valid": 0.3, "test": 0.3})
    for mode in ("keep", "split", "drop"):
        found = [
            Documents(encoder, folder, given | {"special_tokens": mode}, holdout).encode(
                block_of(texts)
            )
            for encoder in encoders
        ]
        first, second = found
        for one, other in zip(first.ids + first.lengths, second.ids + second.lengths, strict=True):
            assert one.tolist() == other.tolist()
        assert first.ledger.receipt() == second.ledger.receipt()
        assert sum(map(len, first.lengths)) == first.ledger.totals(first.ledger.rows)["kept"]


@pytest.mark.parametrize(("bos", "eos"), [(True, True), (True, False), (False, False)])
def test_bos_and_eos_as_asked(make, fast_tokenizer, bos, eos):
    texts = ["fox", "the quick brown fox"]
    expected = [plain(text, fast_tokenizer)[:-1] for text in texts]
    expected = [[BOS] * bos + ids + [EOS] * eos for ids in expected]
    assert split(make(texts, add_bos=bos, add_eos=eos)) == expected


@pytest.mark.parametrize(("bos", "eos"), [(True, True), (True, False), (False, True)])
def test_a_cut_document_keeps_its_bos_and_eos(make, fast_tokenizer, bos, eos):
    texts = ["fox", "the quick brown fox jumps", "a", "1 2 3 4 5 6 7 8"]
    encoded = make(texts, add_bos=bos, add_eos=eos, max_doc_tokens=4)
    room = 4 - bos - eos
    bodies = [plain(text, fast_tokenizer)[:-1] for text in texts]
    assert split(encoded) == [[BOS] * bos + ids[:room] + [EOS] * eos for ids in bodies]
    assert encoded.truncated == sum(len(ids) > room for ids in bodies) == 2


def test_a_limit_without_room_for_text_is_refused(make):
    with pytest.raises(UserError, match="max_doc_tokens 2 leaves no room for text"):
        make([], add_bos=True, max_doc_tokens=2)
    make([], add_bos=True, add_eos=False, max_doc_tokens=2)


def test_a_bos_that_does_not_exist_is_refused(tmp_path):
    folder = Folder(small_encoders.byte_level(tmp_path, bos_token=None))
    encoder, holdout = encoding.exact(folder), Holdout(1, "web", {})
    Documents(encoder, folder, SETTINGS, holdout)
    with pytest.raises(UserError, match="names no bos_token"):
        Documents(encoder, folder, SETTINGS | {"add_bos": True}, holdout)


def test_splits_are_those_of_the_holdout(make):
    texts = [f"text {i}" for i in range(300)]
    holdout = Holdout(7, "web", {"valid": 0.2, "test": 0.3})
    encoded = make(texts, holdout)
    codes = holdout.codes("a.jsonl", block_of(texts).offsets)
    everything = split(make(texts))
    for code in range(3):
        chosen = [everything[i] for i in np.flatnonzero(codes == code)]
        assert split(encoded, code) == chosen and chosen


class Failing:
    """An encoder that fails for some texts and finds nothing in others."""

    name = "failing"

    def encode(self, texts):
        if any(b"fail" in text for text in texts):
            raise ValueError("no")
        documents = [[10 + len(text), EOS] if b"none" not in text else [EOS] for text in texts]
        flat = [number for ids in documents for number in ids]
        return np.array(flat, np.int32), np.array([len(ids) for ids in documents], np.int64)


def test_texts_that_cannot_be_encoded_are_counted(fast_tokenizer):
    folder, holdout = Folder(fast_tokenizer), Holdout(1, "web", {"valid": 0.0, "test": 0.0})
    block = block_of(["a", "fail", "bb", "none", "ccc"], "a.parquet")
    encoded = Documents(Failing(), folder, SETTINGS, holdout).encode(block)
    assert encoded.ids[0].tolist() == [11, EOS, 12, EOS, 13, EOS]
    told = encoded.ledger.totals(encoded.ledger.rows)
    assert told["dropped"] == {"no_tokens": 1, "tokenizer_failure": 1}
    assert encoded.ledger.first["tokenizer_failure"] == [f"a.parquet, row {block.offsets[1]}"]
