"""Tokenizer folders."""

import json

import pytest

import hub_server
import small_tokenizer
from nemoflow import tokenizer
from nemoflow.errors import UserError
from small_tokenizer import SPECIAL


def test_equal_arguments_give_equal_bytes(tiny_tokenizer, tmp_path):
    small_tokenizer.make(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tiny_tokenizer / name).read_bytes()


def test_ids_and_digits(tiny_tokenizer):
    loaded = tokenizer.load(tiny_tokenizer)
    assert [loaded.token_to_id(token) for token in SPECIAL] == list(range(len(SPECIAL)))
    assert tokenizer.vocabulary(tiny_tokenizer) == 300
    assert tokenizer.eos_id(tiny_tokenizer) == SPECIAL.index("<|im_end|>")
    encoding = loaded.encode("12+345", add_special_tokens=False)
    assert encoding.tokens == list("12+345")
    text = "Ünïcode 漢字 \U0001f40d\n\t  end<|im_end|>"
    ids = loaded.encode(text, add_special_tokens=False).ids
    assert loaded.decode(ids, skip_special_tokens=False) == text
    assert ids[-1] == SPECIAL.index("<|im_end|>")


def test_transformers_reads_the_folder(tiny_tokenizer):
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(tiny_tokenizer)
    assert loaded.padding_side == "left"
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<pad>")
    messages = [{"role": "user", "content": "What is 1+1?"}]
    rendered = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.load(tiny_tokenizer).encode(rendered, add_special_tokens=False).ids
    assert loaded(rendered, add_special_tokens=False)["input_ids"] == ids


def test_what_cannot_be_trained(tmp_path):
    with pytest.raises(UserError, match=r"add <\|im_end\|>"):
        tokenizer.train(["text"], 384, ["<pad>"], "", tmp_path)
    with pytest.raises(UserError, match="vocab_size 260"):
        tokenizer.train(["text"], 260, SPECIAL, "", tmp_path)


def test_broken_folders_are_named(tiny_tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json does not exist"):
        tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json is not JSON"):
        tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="holds no tokenizer"):
        tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((tiny_tokenizer / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<none>"}))
    with pytest.raises(UserError, match="names no eos_token"):
        tokenizer.eos_id(tmp_path)


def test_a_tokenizer_of_the_hub_is_fetched_at_its_commit(tmp_path, tiny_tokenizer, monkeypatch):
    hub = hub_server.Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    files = {path.name: path.read_bytes() for path in tiny_tokenizer.iterdir()}
    kept = files | {
        "special_tokens_map.json": "{}",
        "chat_template.jinja": "{{ messages }}",
        "tokenizer.model": "pieces",
        "cl100k.tiktoken": "ranks",
    }
    model = {"model-00001-of-00001.safetensors": "weights", "config.json": "{}", "README.md": ""}
    hub.add("nvidia/model", {**kept, **model}, "models", commit="a" * 40)
    hub.add("nvidia/data", model, "models")
    commit = tokenizer.fetch("nvidia/model", "main", tmp_path / "out", tmp_path / "cache")
    assert commit == "a" * 40
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(kept)
    assert tokenizer.vocabulary(tmp_path / "out") == tokenizer.vocabulary(tiny_tokenizer)
    assert not [path for _, path, _ in hub.asked if "safetensors" in path]
    with pytest.raises(UserError, match="hub nvidia/data at cccccccccccc: it has no token"):
        tokenizer.fetch("nvidia/data", None, tmp_path / "out", tmp_path / "cache")
    with pytest.raises(UserError, match="nvidia/model has no revision v2"):
        tokenizer.fetch("nvidia/model", "v2", tmp_path / "out", tmp_path / "cache")
    hub.shutdown()
    hub.server_close()
