"""A tokenizer of the size and style of Nemotron 3's, trained on a sample of the corpus.

Byte-level BPE without normalizer: one regular expression that makes every digit a token and
leaves contractions whole, 131,072 ids, of which the first 1,000 are reserved.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from nemoflow.files import write_json, write_whole

VOCABULARY, RESERVED = 131_072, 1000
SAMPLE = 120_000_000  # characters, of every fourth document
EOS = "</s>"
NAMED = {
    0: "<unk>", 1: "<s>", 2: EOS, 10: "<|im_start|>", 11: "<|im_end|>", 12: "<think>",
    13: "</think>", 14: "<tool_call>", 15: "</tool_call>", 16: "<tool_response>",
    17: "</tool_response>",
}  # fmt: skip
WRITTEN = {NAMED[number] for number in range(12, 18)}  # by the model; decoding shows them
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
BEFORE = r"[^\r\n\p{L}\p{N}]?"
WORDS = "|".join(
    (
        f"{BEFORE}{UPPER}*{LOWER}+",
        f"{BEFORE}{UPPER}+{LOWER}*",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def build(corpus: Path, folder: Path) -> None:
    """Train on JSON lines with a `text`, and write a tokenizer folder as Hugging Face's."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[
            AddedToken(name, special=name not in WRITTEN, normalized=False)
            for name in (NAMED.get(number, f"<SPECIAL_{number}>") for number in range(RESERVED))
        ],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=64,
    )
    tokenizer.train_from_iterator(sample(corpus), trainer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": EOS,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", config)
    write_whole(folder / "tokenizer.json", tokenizer.to_str())


def sample(corpus: Path) -> Iterator[str]:
    """The text of every fourth document of a corpus' beginning."""
    size = 0
    with open(corpus, encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % 4 == 0:
                yield (text := json.loads(line)["text"])
                size += len(text)
                if size > SAMPLE:
                    return
