"""Tokenizer folders of every kind."""

import pytest

import small_encoders
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json
from nemoflow.vocabulary import HUGGINGFACE, SENTENCEPIECE, TIKTOKEN, Folder


@pytest.fixture
def folders(tmp_path):
    """One of each kind."""
    return {
        HUGGINGFACE: small_encoders.byte_level(tmp_path / "h"),
        SENTENCEPIECE: small_encoders.sentencepiece(tmp_path / "s"),
        TIKTOKEN: small_encoders.tiktoken(tmp_path / "t"),
    }


def test_kinds_and_what_they_hold(folders):
    found = {kind: Folder(path) for kind, path in folders.items()}
    assert {kind: folder.kind for kind, folder in found.items()} == {kind: kind for kind in found}
    told = {k: (f.bos, f.eos, f.specials) for k, f in found.items()}
    assert told[HUGGINGFACE] == (1, 2, dict(enumerate(small_encoders.SPECIAL)))
    assert told[SENTENCEPIECE] == (1, 2, {})
    assert told[TIKTOKEN] == (300, 301, {300: "<s>", 301: "</s>"})
    sizes = {kind: folder.size for kind, folder in found.items()}
    assert sizes[SENTENCEPIECE] == 400 and sizes[TIKTOKEN] == 302
    vocab = found[HUGGINGFACE].told.model.vocab
    assert sizes[HUGGINGFACE] == max(vocab.values()) + 1


def test_an_added_token_counts_to_the_size(tmp_path):
    def add(told):
        extra = told["added_tokens"][0] | {"id": 5000, "content": "<late>"}
        told["added_tokens"].append(extra)

    folder = Folder(small_encoders.byte_level(tmp_path, add, eos_token={"content": "<late>"}))
    assert (folder.size, folder.eos, folder.eos_text) == (5001, 5000, "<late>")


def test_unigram_vocabularies_are_lists(tmp_path):
    def change(told):
        vocab = [["<unk>", 0.0], ["</s>", 0.0], ["a", -1.0]]
        told["model"] = {"type": "Unigram", "unk_id": 0, "vocab": vocab}
        told["added_tokens"] = []

    folder = Folder(small_encoders.byte_level(tmp_path, change))
    assert (folder.size, folder.eos, folder.specials) == (3, 1, {})


@pytest.mark.parametrize("kind", [HUGGINGFACE, SENTENCEPIECE, TIKTOKEN])
def test_the_digest_follows_from_the_content_alone(folders, tmp_path, kind):
    folder = Folder(folders[kind])
    before = folder.digest
    folders[kind].rename(tmp_path / "elsewhere")
    assert Folder(tmp_path / "elsewhere").digest == before
    path = tmp_path / "elsewhere" / folder.file.name
    content = path.read_bytes()
    path.write_bytes(content + (b" " if kind == HUGGINGFACE else b""))
    assert (Folder(tmp_path / "elsewhere").digest != before) == (kind == HUGGINGFACE)


@pytest.mark.parametrize(
    "changed",
    [
        {"bos_token": "</s>"},
        {"eos_token": "<s>"},
        {"pat_str": r"\S+|\s+"},
        {"special_tokens": {"<s>": 300, "</s>": 301, "<x>": 302}},
        {"special_tokens": {"<z>": 300, "</s>": 301}, "bos_token": "<z>"},
    ],
    ids=str,
)
def test_the_digest_follows_from_what_the_config_says_of_ids(tmp_path, changed):
    before = Folder(small_encoders.tiktoken(tmp_path)).digest
    assert Folder(small_encoders.tiktoken(tmp_path, chat_template="{{x}}")).digest == before
    assert Folder(small_encoders.tiktoken(tmp_path, **changed)).digest != before


def test_what_is_missing_is_named(tmp_path, folders):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no tokenizer\.json, tokenizer\.model"):
        Folder(tmp_path / "empty")
    config = folders[HUGGINGFACE] / "tokenizer_config.json"
    write_json(config, {"eos_token": "<nowhere>"})
    with pytest.raises(UserError, match="names no eos_token of its vocabulary"):
        _ = Folder(folders[HUGGINGFACE]).eos
    with pytest.raises(UserError, match="names no bos_token"):
        _ = Folder(folders[HUGGINGFACE]).bos
    config.unlink()
    with pytest.raises(UserError, match="names no eos_token"):
        _ = Folder(folders[HUGGINGFACE]).eos
    config.write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json is not JSON"):
        Folder(folders[HUGGINGFACE])


def test_a_sentencepiece_model_may_lack_an_eos(tmp_path):
    folder = Folder(small_encoders.sentencepiece(tmp_path, eos_id=-1))
    with pytest.raises(UserError, match="names no eos_token"):
        _ = folder.eos


def test_damaged_files_are_named(folders):
    (folders[HUGGINGFACE] / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(UserError, match=r"tokenizer\.json: .*build the tokenizer again"):
        _ = Folder(folders[HUGGINGFACE]).told
    (folders[SENTENCEPIECE] / "tokenizer.model").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"tokenizer\.model: .*build the tokenizer again"):
        _ = Folder(folders[SENTENCEPIECE]).size
    (folders[TIKTOKEN] / "small.tiktoken").write_text("no ranks here")
    with pytest.raises(UserError, match=r"small\.tiktoken: .*build the tokenizer again"):
        _ = Folder(folders[TIKTOKEN]).size


def test_a_pattern_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match=r"small\.tiktoken: .*build the tokenizer again"):
        _ = Folder(small_encoders.tiktoken(tmp_path, pat_str="(")).size


@pytest.mark.parametrize("key", ["pat_str", "special_tokens"])
def test_a_tiktoken_file_alone_is_not_enough(folders, key):
    path = folders[TIKTOKEN] / "tokenizer_config.json"
    write_json(path, {k: v for k, v in read_json(path).items() if k != key})
    with pytest.raises(UserError, match="put pat_str and special_tokens into tokenizer_config"):
        _ = Folder(folders[TIKTOKEN]).size


def test_tokenizer_json_goes_before_the_others(folders):
    for name in ("tokenizer.model", "x.tiktoken"):
        (folders[HUGGINGFACE] / name).write_bytes(b"")
    assert Folder(folders[HUGGINGFACE]).kind == HUGGINGFACE
