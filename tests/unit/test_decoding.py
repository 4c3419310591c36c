"""Token ids back to text: what each library says, cut at control tokens."""

import numpy as np
import pytest

import small_encoders
from nemoflow.decoding import Decoder
from nemoflow.vocabulary import HUGGINGFACE, SENTENCEPIECE, Folder

TEXTS = ("the lazy fox 12+3", "naïve café — 東京 👍🏽", "tabs \n\t end", "ﬁ İstanbul\r\n")


def another_decoder(folder):
    """A folder whose decoder is not that of bytes."""
    return small_encoders.byte_level(folder, lambda told: told.update(decoder={"type": "Fuse"}))


@pytest.fixture(
    scope="module",
    params=[
        small_encoders.byte_level, small_encoders.chat, another_decoder,
        small_encoders.sentencepiece, small_encoders.tiktoken,
    ],
)  # fmt: skip
def folder(request, tmp_path_factory):
    return Folder(request.param(tmp_path_factory.mktemp("folder")))


def encoded(folder, text):
    if folder.kind == HUGGINGFACE:
        return folder.huggingface.encode(text, add_special_tokens=False).ids
    return (folder.sentencepiece if folder.kind == SENTENCEPIECE else folder.tiktoken).encode(text)


def decoded(folder, ids):
    if folder.kind == HUGGINGFACE:
        return folder.huggingface.decode(ids, skip_special_tokens=True)
    return (folder.sentencepiece if folder.kind == SENTENCEPIECE else folder.tiktoken).decode(ids)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_what_its_library_makes_of_its_tokens(folder, text):
    ids = encoded(folder, text)
    assert Decoder(folder).texts(np.array(ids)) == [decoded(folder, ids)]
    assert Decoder(folder).texts(np.array([*ids, folder.eos])) == [decoded(folder, ids)]


def test_control_tokens_stand_between_texts(folder):
    first, second = (encoded(folder, text) for text in TEXTS[:2])
    ids = np.array([folder.eos, *first, folder.eos, folder.eos, *second, folder.eos])
    assert Decoder(folder).texts(ids) == [decoded(folder, first), decoded(folder, second)]
    assert Decoder(folder).texts(np.array([folder.eos])) == []
    assert Decoder(folder).texts(np.zeros(0, np.int32)) == []


def test_a_cut_character_is_no_error(folder):
    ids = encoded(folder, "👍")[:1]
    assert len(Decoder(folder).texts(np.array(ids))) == 1


def test_every_id_of_a_vocabulary_of_bytes_is_as_its_library_has_it(folder):
    if folder.kind == SENTENCEPIECE:
        pytest.skip("the library itself decodes")
    held, decoder = set(folder.specials) | {folder.eos}, Decoder(folder)
    for number in set(range(folder.size)) - held:
        if folder.kind != HUGGINGFACE and number not in range(260):
            continue  # ids between the ranks and the special tokens mean nothing
        assert decoder.texts(np.array([number])) == [decoded(folder, [number])], number
