"""Tokenizers of a few hundred ids, of every kind that data preparation reads."""

import base64
import functools
import io
import json

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import small_tokenizer
from nemoflow.files import write_json, write_whole

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
EOS = SPECIAL.index("</s>")
THINKING = ("<think>", "</think>")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
NEMOTRON = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = ("straße don't", "naïve café", "東京 は", "  \n\n\t", "İstanbul 3.14", "== //!! x86_64")
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


def untrained(regex=None, **model):
    """A byte-level BPE with GPT-2's split, or one by a regex."""
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = to_bytes
    if regex:
        split = pre_tokenizers.Split(Regex(regex), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    return tokenizer


@functools.cache
def trained(regex=None):
    """tokenizer.json of such a tokenizer, as text."""
    tokenizer = untrained(regex)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*small_tokenizer.sentences(), *WORDS * 9], trainer)
    return tokenizer.to_str()


def joined_across(told):
    """Let a change of byte_level merge the bytes of a character with an ASCII one beside it.

    So it shows in the ids where a text is split.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    letter = {byte: chr(byte) for byte in printable}
    letter |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    pairs = [(letter[ord(a)], letter[lead]) for a in "aB1 " for lead in range(0xC2, 0xF5)]
    pairs += [(letter[last], letter[ord(a)]) for a in "bB2 " for last in range(0x80, 0xC0)]
    vocab = told["model"]["vocab"]
    for pair in pairs:
        vocab.setdefault("".join(pair), len(vocab))
    told["model"]["merges"] = [list(pair) for pair in pairs] + told["model"]["merges"]


def byte_level(folder, change=None, regex=None, **names):
    """Write a folder that gigatoken can encode for, unless `change` does something to its JSON."""
    told = json.loads(trained(regex))
    if change:
        change(told)
    write_json(folder / "tokenizer.json", told, sort_keys=False)
    write_json(folder / "tokenizer_config.json", NAMES | names)
    return folder


def sentencepiece(folder, **told):
    """Write a folder with a SentencePiece model that falls back to bytes."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(small_tokenizer.sentences()),
        model_writer=model,
        minloglevel=2,
        num_threads=1,
        **{"vocab_size": 400, "byte_fallback": True, "model_type": "bpe"} | told,
    )
    write_whole(folder / "tokenizer.model", model.getvalue())
    return folder


def tiktoken(folder, merges=(b"th", b"the", b" the", b"ox"), **config):
    """Write a folder with a .tiktoken file of all bytes and some merges."""
    ranks = [bytes([byte]) for byte in range(256)] + list(merges)
    lines = (f"{base64.b64encode(each).decode()} {rank}\n" for rank, each in enumerate(ranks))
    write_whole(folder / "small.tiktoken", "".join(lines))
    told = {
        "pat_str": r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        "special_tokens": {"<s>": 300, "</s>": 301},
    }
    write_json(folder / "tokenizer_config.json", NAMES | told | config)
    return folder


def chat(folder):
    """Write a folder like that of Nemotron 3: its split, ChatML's tokens and those of thinking."""

    def think(told):
        size = len(told["model"]["vocab"])
        last = told["added_tokens"][-1]
        told["added_tokens"] += [
            {**last, "id": size + number, "content": content, "special": False}
            for number, content in enumerate(THINKING)
        ]

    return byte_level(folder, think, NEMOTRON)
