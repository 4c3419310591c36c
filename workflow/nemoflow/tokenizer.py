"""Tokenizer folders as Hugging Face writes them: making one, and reading what data prep needs."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from nemoflow.errors import UserError
from nemoflow.files import write_json, write_whole

END_OF_TURN = "<|im_end|>"  # ends a turn and a document: the EOS of Nemotron 3's chat models
PAD = "<pad>"
LONGEST = 1 << 20  # tokens; Nemotron 3's longest context, a model's own limit holds before it


def train(
    rows_of_text: Iterable[str],
    vocab_size: int,
    special_tokens: list[str],
    template: str,
    out_dir: str | Path,
) -> None:
    """Train a byte-level BPE in which every digit is a token, and write a whole tokenizer folder.

    Special tokens take the first ids, in the given order, then the 256 bytes, then the merges;
    text with few distinct words gives fewer than `vocab_size` ids. `template` is the Jinja text
    of the chat template. Equal arguments give equal bytes. UserError when the end of turn is
    missing among the special tokens or the vocabulary is too small to hold them and the bytes.
    """
    if END_OF_TURN not in special_tokens:
        raise UserError(f"special_tokens: add {END_OF_TURN}, it ends turns and documents")
    if vocab_size < len(special_tokens) + 256:
        raise UserError(
            f"vocab_size {vocab_size} is below {len(special_tokens)} specials + 256 bytes"
        )
    tokenizer = _untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(rows_of_text, trainer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template,
        "eos_token": END_OF_TURN,
        "pad_token": PAD if PAD in special_tokens else END_OF_TURN,
        "padding_side": "left",  # a folder that does not say so pads right, and generation fails
        "model_max_length": LONGEST,
        "clean_up_tokenization_spaces": False,
    }
    write_whole(Path(out_dir) / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    write_json(Path(out_dir) / "tokenizer_config.json", config)


def _untrained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def fetch(repository: str, revision: str | None, out_dir: str | Path) -> None:
    """Download a tokenizer of the hub; not available in this release: UserError."""
    raise UserError(
        f"tokenizer hub {repository}: reading from the hub is not available in this release;"
        f" put its tokenizer.json and tokenizer_config.json into {out_dir}"
        f" (hf download {repository} --include 'tokenizer*' --local-dir {out_dir})"
    )


def load(tokenizer_dir: str | Path) -> Tokenizer:
    """The tokenizer of a folder, which neither cuts nor pads; UserError when it is not one."""
    path = Path(tokenizer_dir) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; build the tokenizer first")
    content = path.read_text(encoding="utf-8")
    if "model" not in _parsed(path, content):
        raise UserError(f"{path} holds no tokenizer; build the tokenizer again")
    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def vocabulary(tokenizer_dir: str | Path) -> int:
    """The number of ids a model needs for this tokenizer: its largest id + 1."""
    return max(load(tokenizer_dir).get_vocab().values()) + 1


def eos_id(tokenizer_dir: str | Path) -> int:
    """The id of the token that ends a document, the folder's eos_token."""
    name = _config(tokenizer_dir).get("eos_token")
    text = name["content"] if isinstance(name, dict) else name
    found = load(tokenizer_dir).token_to_id(text) if text else None
    if found is None:
        raise UserError(
            f"{tokenizer_dir}: tokenizer_config.json names no eos_token of its vocabulary"
        )
    return found


def _config(tokenizer_dir: str | Path) -> dict[str, Any]:
    path = Path(tokenizer_dir) / "tokenizer_config.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; build the tokenizer again")
    return _parsed(path, path.read_text(encoding="utf-8"))


def _parsed(path: Path, content: str) -> dict[str, Any]:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}; build the tokenizer again") from error
