"""Tokenizer folders as Hugging Face writes them: making one, and reading what data prep needs."""

import json
import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from nemoflow import corpus, hub_data
from nemoflow.errors import UserError
from nemoflow.files import sha256_of, write_json, write_whole
from nemoflow.source_file import SourceFile
from nemoflow.vocabulary import Folder

END_OF_TURN = "<|im_end|>"  # ends a turn and a document: the EOS of Nemotron 3's chat models
PAD = "<pad>"
# What is fetched of a repository.
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    *("tokenizer.model", "*.tiktoken", "vocab.json", "merges.txt", "vocab.txt"),
)
VOCABULARIES = ("tokenizer.json", "tokenizer.model", ".tiktoken")
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


def fetch(repository: str, revision: str | None, out_dir: str | Path, cache: Path) -> str:
    """Put a tokenizer of the hub into a folder; returns the commit that it is of.

    What is kept are the files that tokenizers read, with the chat templates and nothing of the
    model. They are downloaded into `cache`. UserError where repository or revision do not exist,
    may not be read, or hold no tokenizer.
    """
    commit = hub_data.commit_of(repository, revision, "model")
    listed = hub_data.list_repository(repository, commit, "model")
    wanted = [file for file in listed if any(fnmatch(file.path, name) for name in FILES)]
    if not any(file.path.endswith(VOCABULARIES) for file in wanted):
        raise UserError(
            f"tokenizer hub {repository} at {commit[:12]}: it has no {', '.join(VOCABULARIES)};"
            " name a repository that holds the tokenizer"
        )
    for file in wanted:
        there = hub_data.download(file, repository, commit, cache, "model")
        target = Path(out_dir) / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there, target)
    return commit


def copy(folder: str, out_dir: Path) -> list[dict[str, Any]]:
    """Copy the files of a tokenizer on this machine; [{path, bytes, digest}] of them."""
    if not Path(folder).is_dir():
        raise UserError(f"tokenizer local {folder}: there is no such folder")
    found = sorted(path for name in FILES for path in Path(folder).glob(name))
    if not any(path.name.endswith(VOCABULARIES) for path in found):
        raise UserError(f"tokenizer local {folder}: no {', '.join(VOCABULARIES)} there")
    told = []
    for path in found:
        name = path.relative_to(folder).as_posix()
        (out_dir / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out_dir / name)
        entry = SourceFile(name, path.stat().st_size, f"sha256:{sha256_of(out_dir / name)}")
        told.append(vars(entry))
    return told


def load(tokenizer_dir: str | Path) -> Tokenizer:
    """The tokenizer of a folder, which neither cuts nor pads; UserError when it is not one."""
    path = Path(tokenizer_dir) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; build the tokenizer first")
    content = path.read_text(encoding="utf-8")
    if "model" not in _parsed(path, content):
        raise UserError(f"{path} holds no tokenizer; build the tokenizer again")
    return unlimited(content)


def unlimited(content: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without the truncation and padding it may ask for."""
    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def make(told: Mapping[str, Any], out_dir: Path, cache: Path) -> dict[str, Any]:
    """Make the tokenizer of a spec in a folder: fetch it, or train it; what its manifest tells.

    UserError as `fetch` and `train`, and when it has more ids than its file says.
    """
    if trained := told.get("train"):
        given = [corpus.pin(source) for source in trained["sources"]]
        texts = corpus.texts(given, trained["text_field"], cache)
        special = trained["special_tokens"]
        train(texts, told["vocab_size"], special, trained["template"], out_dir)
        facts = corpus.facts(given, cache)
    elif told.get("local"):
        facts = {"source_files": copy(told["local"], out_dir)}
    else:
        commit = fetch(told["hub"], told.get("revision"), out_dir, cache)
        facts = {"pinned": {"revision": commit}}
    found = vocabulary(out_dir)
    if found > told["vocab_size"]:
        raise UserError(
            f"the tokenizer has {found:,} ids, its file says vocab_size: {told['vocab_size']:,};"
            " correct it"
        )
    return {"vocabulary": found, **facts}


def vocabulary(tokenizer_dir: str | Path) -> int:
    """The number of ids a model needs for this tokenizer: its largest id + 1."""
    return Folder(tokenizer_dir).size


def eos_id(tokenizer_dir: str | Path) -> int:
    """The id of the token that ends a document, the folder's eos_token."""
    return Folder(tokenizer_dir).eos


def _parsed(path: Path, content: str) -> dict[str, Any]:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}; build the tokenizer again") from error
