"""Encoders: the same ids from every library, an EOS after every text."""

import sys

import numpy as np
import pytest

import small_encoders
from nemoflow import encoding
from nemoflow.encoding import Gigatoken, exact, refusal
from nemoflow.vocabulary import Folder
from small_corpus import texts

MANY = 1 << 30
TEXTS = [text.encode() for text in (*texts(20), *small_encoders.WORDS, "a\ua7ceb", "x", "</")]


def split(encoded):
    ids, lengths = encoded
    assert (ids.dtype, lengths.dtype) == (np.int32, np.int64) and lengths.sum() == len(ids)
    return [each.tolist() for each in np.split(ids, np.cumsum(lengths)[:-1])] if len(ids) else []


@pytest.fixture
def folder(fast_tokenizer):
    return Folder(fast_tokenizer)


def test_gigatoken_gives_what_hugging_face_gives(folder):
    ours, theirs = Gigatoken(folder, MANY), exact(folder)
    assert ours.name.startswith("gigatoken 0.") and theirs.name.startswith("tokenizers 0.")
    held = [b"a</s>b", b"</s>", b"</s></s>", b"<|im_start|>x"]
    for given in (TEXTS, held, [*TEXTS, *held], TEXTS[-3:-2], []):
        expected = split(theirs.encode(given))
        assert split(ours.encode(given)) == expected
        assert all(ids[-1] == small_encoders.EOS for ids in expected)
    assert len(expected) == 0 and len(split(ours.encode([b""]))) == 1


def test_parts_have_nothing_after_them(folder, tmp_path):
    """Both encode stretches of a conversation alike: an EOS or a control token in them too."""
    held = [b"a</s>b", b"</s>", b"<|im_start|>x", b"", b"\n", " \u3000\n".encode(), b""]
    for given in ([*TEXTS, *held], held[3:4], []):
        expected = split(exact(folder).encode_parts(given))
        assert split(Gigatoken(folder, MANY).encode_parts(given)) == expected
        loaded = folder.huggingface
        told = [loaded.encode(text.decode(), add_special_tokens=False).ids for text in given]
        assert expected == (told if any(given) else [])
    model = Folder(small_encoders.sentencepiece(tmp_path))
    assert split(exact(model).encode_parts(TEXTS[:3])) == [
        model.sentencepiece.encode(text.decode()) for text in TEXTS[:3]
    ]


def test_an_eos_that_is_no_added_token_never_joins_texts(tmp_path):
    folder = Folder(small_encoders.byte_level(tmp_path, eos_token="x"))
    ours = Gigatoken(folder, MANY)
    assert ours._together(b"axbx", 2) is None
    assert split(ours.encode([b"a", b"x"])) == split(exact(folder).encode([b"a", b"x"]))


def test_special_strings_can_be_ordinary_text(folder):
    for encoder in (Gigatoken(folder, MANY), exact(folder)):
        ids = encoder.ordinary(b"a</s>b <|im_end|>")
        assert ids.dtype == np.int32 and ids[-1] == small_encoders.EOS
        assert not set(ids[:-1].tolist()) & set(folder.specials)
        loaded = encoding.huggingface(folder)
        assert loaded.ordinary(b"fox").tolist() == loaded.encode([b"fox"])[0].tolist()


def test_saved_truncation_and_padding_are_not_applied(tmp_path, folder):
    def cut(told):
        told["truncation"] = {
            "max_length": 2,
            "strategy": "LongestFirst",
            "stride": 0,
            "direction": "Right",
        }

    changed = Folder(small_encoders.byte_level(tmp_path, cut))
    assert split(exact(changed).encode(TEXTS)) == split(exact(folder).encode(TEXTS))
    assert "truncation" in refusal(changed)


def test_the_cache_is_emptied_when_the_process_has_grown(folder, monkeypatch):
    size = iter([100, 140, 151, 120, 158])
    monkeypatch.setattr(encoding, "resident", lambda: next(size))
    encoder = Gigatoken(folder, 50)
    backends = [encoder._backend]
    for _ in range(4):  # each asks once, and once more where it loads anew
        encoder.rest()
        backends.append(encoder._backend)
    changed = [one is not other for one, other in zip(backends, backends[1:], strict=False)]
    assert changed == [False, False, True, False]
    assert split(encoder.encode(TEXTS)) == split(exact(folder).encode(TEXTS))


def test_the_memory_of_a_process_is_told():
    before = encoding.resident()
    held = np.ones(64 << 20, np.uint8)  # too many bytes to be had of what was freed
    assert 32 << 20 < encoding.resident() - before < 96 << 20 and len(held)


def test_sentencepiece(tmp_path):
    folder = Folder(small_encoders.sentencepiece(tmp_path))
    encoder = exact(folder)
    assert encoder.name.startswith("sentencepiece 0.")
    assert refusal(folder) == "it is for tokenizer.json, not for tokenizer.model"
    model = folder.sentencepiece
    found = split(encoder.encode(TEXTS))
    assert found == [[*model.encode(text.decode()), model.eos_id()] for text in TEXTS]
    assert encoder.ordinary(b"a</s>b").tolist() == split(encoder.encode([b"a</s>b"]))[0]
    assert model.eos_id() not in encoder.ordinary(b"a</s>b")[:-1]
    assert split(encoder.encode([])) == []


def test_tiktoken(tmp_path):
    folder = Folder(small_encoders.tiktoken(tmp_path))
    encoder = exact(folder)
    assert encoder.name.startswith("tiktoken 0.") and "small.tiktoken" in refusal(folder)
    found = split(encoder.encode(TEXTS))
    assert [folder.tiktoken.decode(ids[:-1]).encode() for ids in found] == TEXTS
    assert {ids[-1] for ids in found} == {301} and max(map(max, found)) == 301
    assert split(encoder.encode([b"the</s>fox"])) == [[257, 301, ord("f"), 259, 301]]
    assert 301 not in encoder.ordinary(b"the</s>fox")[:-1]


def test_a_tiktoken_file_that_was_made_again_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    first = Folder(small_encoders.tiktoken(tmp_path / "a"))
    before = first.digest
    assert split(exact(first).encode([b"ox"])) == [[259, 301]]
    second = Folder(small_encoders.tiktoken(tmp_path / "a", merges=[b"fo"]))
    assert split(exact(second).encode([b"ox"])) == [[ord("o"), ord("x"), 301]]
    assert second.digest != before


def test_without_gigatoken_there_is_hugging_face(folder, monkeypatch):
    assert refusal(folder) is None
    monkeypatch.setattr(encoding, "find_spec", lambda name: None)
    assert refusal(folder) == "it is not installed"


def test_threads_of_the_libraries_are_off():
    assert "nemoflow.encoding" in sys.modules
    assert encoding.os.environ["RAYON_NUM_THREADS"] == "1"
    assert encoding.os.environ["TOKENIZERS_PARALLELISM"] == "false"
