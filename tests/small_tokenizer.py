"""A tokenizer of 300 ids for tests."""

from pathlib import Path

from nemoflow import tokenizer

SPECIAL = ["<unk>", "<pad>", "<s>", "</s>", "<think>", "</think>", "<|im_start|>", "<|im_end|>"]
TEMPLATES = Path(__file__).parents[1] / "config" / "templates"
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "user", "assistant")


def sentences():
    return [f"{' '.join(WORDS[i % 5 : i % 5 + 6])} {i}+{i * 3}={i * 4}.\n" for i in range(300)]


def make(folder):
    """Write the tokenizer folder: byte-level BPE, ChatML template."""
    template = (TEMPLATES / "chatml.jinja").read_text()
    tokenizer.train(sentences(), 300, SPECIAL, template, folder)
