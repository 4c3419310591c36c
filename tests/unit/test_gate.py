"""What of a tokenizer.json gigatoken may encode."""

import json
import random

import msgspec
import numpy as np
import pytest

import small_encoders
from nemoflow import encoding, gate
from nemoflow.gate import Added, can_separate
from nemoflow.vocabulary import Folder

SPLIT = {"type": "Split", "pattern": {"Regex": small_encoders.NEMOTRON}, "behavior": "Isolated"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
NFC = {"type": "NFC"}


def model(**told):
    return lambda tokenizer: tokenizer["model"].update(told)


def whole(**told):
    return lambda tokenizer: tokenizer.update(told)


def sequence(*members):
    return whole(pre_tokenizer={"type": "Sequence", "pretokenizers": list(members)})


def added(**told):
    return lambda tokenizer: tokenizer["added_tokens"][3].update(told)


def both(*changes):
    return lambda tokenizer: [change(tokenizer) for change in changes] and None


def second_id(tokenizer):
    tokenizer["model"]["vocab"]["<|im_start|>"] = 3 + len(tokenizer["model"]["vocab"])


def unigram(tokenizer):
    tokenizer["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}


PADDING = {"strategy": {"Fixed": 9}, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}
TRUNCATION = {"max_length": 9, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
REFUSED = {
    "normalizer": (whole(normalizer=NFC), "normalizer"),
    "normalized": (both(whole(normalizer=NFC), added(normalized=True)), "normalizer"),
    "single_word": (added(single_word=True), "single words"),
    "normalized flags": (added(normalized=True), "differ in `normalized`"),
    "prefix space": (whole(pre_tokenizer=BYTES | {"add_prefix_space": True}), "not one split"),
    "no pre-tokenizer": (whole(pre_tokenizer=None), "not one split"),
    "bytes without regex": (whole(pre_tokenizer=BYTES), "not one split"),
    "bytes with a second regex": (sequence(SPLIT, BYTES | {"use_regex": True}), "not one split"),
    "punctuation": (sequence(SPLIT, {"type": "Punctuation"}, BYTES), "not one split"),
    "punctuation after": (sequence(SPLIT, BYTES, {"type": "Punctuation"}), "not one split"),
    "digits": (sequence({"type": "Digits"}, BYTES), "not one split"),
    "two splits": (sequence(SPLIT, SPLIT, BYTES), "not one split"),
    "removed": (sequence(SPLIT | {"behavior": "Removed"}, BYTES), "not one split"),
    "inverted": (sequence(SPLIT | {"invert": True}, BYTES), "not one split"),
    "a string": (sequence(SPLIT | {"pattern": {"String": " "}}, BYTES), "not one split"),
    "nothing": (sequence(), "not one split"),
    "dropout": (model(dropout=0.1), "dropout, a prefix or a suffix"),
    "suffix": (model(end_of_word_suffix="</w>"), "dropout, a prefix or a suffix"),
    "prefix": (model(continuing_subword_prefix="##"), "dropout, a prefix or a suffix"),
    "byte_fallback": (model(byte_fallback=True), "falls back to bytes"),
    "truncation": (whole(truncation=TRUNCATION), "truncation or padding"),
    "padding": (whole(padding=PADDING), "truncation or padding"),
    "two ids": (second_id, "<|im_start|> has two ids"),
    "unigram": (unigram, "its model is Unigram"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_gigatoken_does_otherwise_is_refused(tmp_path, name):
    change, why = REFUSED[name]
    assert why in encoding.refusal(Folder(small_encoders.byte_level(tmp_path, change)))


PASSING = {
    "gpt2": (None, small_encoders.joined_across),
    "nemotron": (small_encoders.NEMOTRON, small_encoders.joined_across),
    "ignore_merges": (small_encoders.NEMOTRON, model(ignore_merges=True)),
    "blanks taken away": (None, added(lstrip=True, rstrip=True)),
    "not special": (None, added(special=False)),
    "an unknown token": (None, model(unk_token="<unk>")),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_encoded_alike(tmp_path, name):
    regex, change = PASSING[name]
    folder = Folder(small_encoders.byte_level(tmp_path, change, regex))
    assert encoding.refusal(folder) is None
    texts = list(gate.stress(folder.told.added_tokens))
    ours = encoding.Gigatoken(folder, 1 << 30).encode(texts)
    assert gate.difference(texts, ours, encoding.exact(folder).encode(texts)) is None


def test_stress_is_always_the_same_and_holds_what_it_should():
    tokens = [Added(0, "</s>"), Added(1, "<think>")]
    texts = list(gate.stress(tokens))
    assert texts == list(gate.stress(tokens)) and len(texts) == gate.STRESS
    joined = b"".join(texts).decode()
    assert all(piece in joined for piece in [*gate.PIECES, "</s>", "<think>"])


@pytest.mark.parametrize(
    ("eos", "others", "expected"),
    [
        ("</s>", ["<s>", "<think>"], True),
        ("</s>", ["</s>\n"], False),
        ("</s>", ["a</s>b"], False),
        ("</s>", ["user:<"], False),
        ("</s>", ["a</"], False),
        ("||end||", [], False),  # a text that ends with "||end" has it too early
        ("end", [], True),
    ],
)
def test_an_eos_that_others_may_hide_separates_nothing(eos, others, expected):
    tokens = [Added(i, text) for i, text in enumerate([eos, *others])]
    assert can_separate(eos, tokens) is expected
    assert not can_separate("missing", tokens)
    assert not can_separate(eos, [Added(0, eos, rstrip=True)])
    assert not can_separate(eos, [Added(0, eos, lstrip=True)])


@pytest.mark.parametrize("eos", ["</s>", "||end||", "a</", "</s", "aba"])
def test_documents_do_not_touch_whatever_they_end_with(tmp_path, eos):
    """Random texts of pieces of all added tokens, many at once and one by one."""

    def change(told):
        numbers = range(len(told["model"]["vocab"]), 9999)
        for number, text in zip(numbers, ["||end||", "a</", "</s", "aba", "s>a"], strict=False):
            extra = {"id": number, "content": text, "special": True}
            told["added_tokens"].append(told["added_tokens"][0] | extra)

    folder = Folder(small_encoders.byte_level(tmp_path, change, eos_token=eos))
    chosen = random.Random(3)
    parts = ["a", "</", "s>", "|", "||end", "||", "end", "b", "ab", " ", "<", "s", "/", "ba"]
    texts = ["".join(chosen.choices(parts, k=chosen.randint(1, 5))) for _ in range(400)]
    texts = [text.encode() for text in texts if eos not in text]
    ours = encoding.Gigatoken(folder, 1 << 30).encode(texts)
    assert gate.difference(texts, ours, encoding.exact(folder).encode(texts)) is None


def test_the_first_text_that_differs_is_named():
    texts, lengths = [b"a", b"b", b"c"], np.array([2, 1, 3])
    ids = np.arange(6)
    other = ids.copy()
    other[3:] += 1
    assert gate.difference(texts, (ids, lengths), (ids, lengths)) is None
    assert gate.difference(texts, (ids, lengths), (other, lengths)) == b"c"
    assert gate.difference(texts, (ids, lengths), (ids, np.array([2, 2, 2]))) == b"b"


def test_a_tokenizer_that_says_nothing_of_its_model_is_bpe():
    told = json.loads(small_encoders.trained())
    del told["model"]["type"]
    assert gate.refusal(msgspec.convert(told, gate.TokenizerJson)) is None
