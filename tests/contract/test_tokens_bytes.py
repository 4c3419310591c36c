"""Our shards, byte for byte what megatron-core's builder writes of Hugging Face's ids."""

import json
import os
import random
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

import small_encoders
from nemoflow.files import read_json, write_json
from nemoflow.indexed import IndexedReader

HERE = Path(__file__).parent
MEGA = 10**6
EOS = "</s>"
SPECIAL = ("<unk>", "<s>", EOS, "<|im_start|>", "<|im_end|>")
VOCABULARY = 4000
ODD = (
    "\r\n",
    "\r",
    "\u2028",
    "\u00a0",
    "\u3000",
    "\ufeff",
    "\x00",
    "e\u0301",
    "👩🏽‍🚀",
    "ﬁ",
    "İ",
    "\u1ad0",
)
BLANK = ("", " ", "\n\n\t")


def make_tokenizer(folder: Path, texts: list[str]) -> Tokenizer:
    """A byte-level BPE in the style of Nemotron 3's, small."""
    tokenizer = small_encoders.untrained(small_encoders.NEMOTRON, ignore_merges=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"eos_token": EOS})
    return tokenizer


def sources() -> Iterator[str]:
    """Modules of the standard library, again and again."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    while True:
        for path in paths:
            yield path.read_text(encoding="utf-8")


def documents(megabytes: float, huge: int) -> Iterator[str]:
    """Texts of so many MB, one of `huge` words among them; no two alike but blank ones."""
    draw, size, number = random.Random(0), 0, 0
    library = sources()
    while size < megabytes * MEGA:
        text, start = next(library), 0
        while start < len(text):
            end = start + int(draw.lognormvariate(7.5, 1))
            made = f"{number} {spoiled(text[start:end], draw)}{strange(draw)}"
            start, number, size = end, number + 1, size + len(made.encode())
            yield made
            if number % 97 == 0:
                yield draw.choice(BLANK)
            if huge and size > megabytes * MEGA / 2:
                yield " ".join(draw.choices(text.split(), k=huge))
                huge = 0


def spoiled(text: str, draw: random.Random) -> str:
    """A text with strings in it that look like special tokens, and odd characters."""
    for _ in range(draw.choice((0, 0, 1, 3))):
        place = draw.randint(0, len(text))
        text = text[:place] + draw.choice((*SPECIAL, *ODD, "<|im_", "</s", "<s><s>")) + text[place:]
    return text


def strange(draw: random.Random) -> str:
    """Sometimes, characters of all Unicode but the surrogates, those to come among them."""
    if draw.random() > 0.1:
        return ""
    points = (draw.randrange(0x110000) for _ in range(draw.randrange(200)))
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def make_ours(folder: Path, dtype: str, python: Path) -> list[dict]:
    """Our shards of the corpus in a folder, made in four, of three splits each."""
    settings = {
        "corpus": "mixed",
        "source": {"local": "corpus.jsonl"},
        "text_field": "text",
        "dtype": dtype,
        "add_bos": False,
        "add_eos": True,
        "min_doc_chars": 0,
        "max_doc_tokens": None,
        "special_tokens": "keep",
        "splits": {"valid": 0.05, "test": 0.05},
        "seed": 1,
        "sample": None,
        "max_dropped": 0.0,
    }
    write_json(folder / "settings.json", settings)
    command = [python, HERE / "our_shards.py", folder]
    path = {"PYTHONPATH": str(HERE.parents[1] / "workflow")}
    done = subprocess.run(command, env=os.environ | path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not with gigatoken" not in done.stderr, done.stderr
    return read_json(folder / "shards.json")


def theirs(folder: Path, prefix: str, texts: list[np.ndarray], dtype: str) -> str:
    """What megatron-core's builder writes of some documents; its prefix."""
    made = str(folder / "theirs" / prefix.replace("/", "-"))
    Path(made).parent.mkdir(exist_ok=True)
    builder = IndexedDatasetBuilder(f"{made}.bin", dtype=np.dtype(dtype).type)
    for ids in texts:
        builder.add_document(torch.from_numpy(ids), [len(ids)])
    builder.finalize(f"{made}.idx")
    return made


def read(prefix: str) -> Iterator[np.ndarray]:
    """The documents of a shard."""
    reader = IndexedReader(prefix)
    yield from (reader.document(number) for number in range(len(reader)))


def compare(folder: Path, megabytes: float, huge: int, dtypes: list[str], python: Path) -> None:
    """Every document once, in its order, and every file as megatron-core writes it."""
    texts = list(documents(megabytes, huge))
    lines = (json.dumps({"text": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts))
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    tokenizer = make_tokenizer(folder / "tokenizer", texts[:400])
    eos = tokenizer.token_to_id(EOS)
    kept, expected = [text for text in texts if text.strip()], []
    for start in range(0, len(kept), 1000):
        for found in tokenizer.encode_batch(kept[start : start + 1000], add_special_tokens=False):
            expected.append(np.array([*found.ids, eos], np.int32))
    places = {ids.tobytes(): place for place, ids in enumerate(expected)}
    assert len(places) == len(kept)
    for dtype in dtypes:
        seen = []
        for shard in make_ours(folder, dtype, python):
            prefix = str(folder / shard["prefix"])
            found = [places.get(ids.astype(np.int32).tobytes(), -1) for ids in read(prefix)]
            assert -1 not in found, f"{shard['prefix']}: document {found.index(-1)} has other ids"
            assert found == sorted(found)
            seen += found
            other = theirs(folder, shard["prefix"], [expected[place] for place in found], dtype)
            for end in ("bin", "idx"):
                same = Path(f"{prefix}.{end}").read_bytes() == Path(f"{other}.{end}").read_bytes()
                assert same, f"{shard['prefix']}.{end}"
        assert sorted(seen) == list(range(len(kept)))


def test_bytes(tmp_path, main_python):
    compare(tmp_path, 3, 100_000, ["int32", "uint16"], main_python)


@pytest.mark.long
def test_bytes_of_a_large_corpus(tmp_path, main_python):
    compare(tmp_path, 100, 5_000_000, ["int32"], main_python)
