"""What a tokenizer folder is: its kind, its size, its EOS, the tokens that control a model.

tokenizer.json is Hugging Face's; tokenizer.model SentencePiece's; a .tiktoken file has the ranks
alone: how text is split and which tokens are special say `pat_str` and `special_tokens` of the
tokenizer_config.json beside it.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, sha256_of
from nemoflow.gate import TokenizerJson

HUGGINGFACE, SENTENCEPIECE, TIKTOKEN = "huggingface", "sentencepiece", "tiktoken"
AGAIN = "build the tokenizer again"


class Folder:
    """A tokenizer folder.

    `eos` is the id that ends a document and `eos_text` its text, `specials` {id: text} of control
    tokens, `size` the largest id + 1.

    Raises:
        UserError: there is no tokenizer in it, it cannot be read, or it has no EOS.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.file = next(
            (file for name in FILES for file in sorted(self.path.glob(name))), self.path / "none"
        )
        if not self.file.is_file():
            raise UserError(f"{self.path}: no {', '.join(FILES)} there; {AGAIN}")
        self.kind = FILES["*.tiktoken" if self.file.suffix == ".tiktoken" else self.file.name]
        self.eos_text = self._text("eos_token")

    @cached_property
    def config(self) -> dict[str, Any]:
        """tokenizer_config.json, empty where there is none."""
        path = self.path / "tokenizer_config.json"
        try:
            return read_json(path) if path.exists() else {}
        except ValueError as error:
            raise UserError(f"{path} is not JSON: {error}; {AGAIN}") from None

    @cached_property
    def json(self) -> bytes:
        """The content of tokenizer.json."""
        return self.file.read_bytes()

    @cached_property
    def told(self) -> TokenizerJson:
        """What stands in it."""
        try:
            return msgspec.json.decode(self.json, type=TokenizerJson)
        except msgspec.DecodeError as error:
            raise UserError(f"{self.file}: {error}; {AGAIN}") from None

    @cached_property
    def huggingface(self) -> Any:
        """The tokenizer of tokenizer.json, without the truncation and padding it may ask for."""
        from nemoflow.tokenizer import unlimited  # loads the library, which gigatoken spares

        return unlimited(self.json.decode())

    @cached_property
    def digest(self) -> str:
        """A digest of all that ids follow from."""
        told = [sha256_of(self.file), self.eos, self._text("bos_token")]
        return digest([*told, self.config.get("pat_str"), sorted(self.specials.items())])

    @cached_property
    def eos(self) -> int:
        """The id that ends a document."""
        return self._id("eos_token", lambda: self.sentencepiece.eos_id())

    @cached_property
    def bos(self) -> int:
        """The id that begins one, where a corpus asks for it."""
        return self._id("bos_token", lambda: self.sentencepiece.bos_id())

    def _text(self, key: str) -> str | None:
        name = self.config.get(key)
        return name["content"] if isinstance(name, dict) else name

    def _id(self, key: str, of_model: Callable[[], int]) -> int:
        text = self._text(key)
        if self.kind == SENTENCEPIECE:
            found = of_model()
        elif self.kind == TIKTOKEN:
            found = (self.config.get("special_tokens") or {}).get(text)
        else:
            found = self._ids().get(text) if text else None
        if found is None or found < 0:
            raise UserError(
                f"{self.path}: tokenizer_config.json names no {key} of its vocabulary; {AGAIN}"
            )
        return found

    def _ids(self) -> dict[str, int]:
        vocab = self.told.model.vocab
        known = vocab if isinstance(vocab, dict) else {}
        if isinstance(vocab, list):  # Unigram: [text, score] in the order of their ids
            known = {text: place for place, (text, _) in enumerate(vocab)}
        return known | {token.content: token.id for token in self.told.added_tokens}

    @cached_property
    def size(self) -> int:
        """The number of ids a model needs: the largest id + 1."""
        if self.kind == SENTENCEPIECE:
            return self.sentencepiece.get_piece_size()
        return self.tiktoken.n_vocab if self.kind == TIKTOKEN else max(self._ids().values()) + 1

    @cached_property
    def specials(self) -> dict[int, str]:
        """{id: text} of the tokens that control a model: not to be had from text by accident."""
        if self.kind == SENTENCEPIECE:
            return {}  # it never makes a control symbol of a text
        if self.kind == TIKTOKEN:
            return {number: text for text, number in self.config["special_tokens"].items()}
        return {token.id: token.content for token in self.told.added_tokens if token.special}

    @cached_property
    def sentencepiece(self) -> Any:
        """The SentencePiece model."""
        import sentencepiece

        try:
            return sentencepiece.SentencePieceProcessor(model_file=str(self.file))
        except (RuntimeError, OSError) as error:
            raise UserError(f"{self.file}: {error}; {AGAIN}") from None

    @cached_property
    def tiktoken(self) -> Any:
        """The tiktoken encoding."""
        import tiktoken
        from tiktoken.load import load_tiktoken_bpe

        pattern, special = self.config.get("pat_str"), self.config.get("special_tokens")
        if not pattern or not special:
            raise UserError(
                f"{self.path}: a .tiktoken file does not say how text is split; put pat_str and"
                " special_tokens into tokenizer_config.json beside it"
            )
        try:
            # With the digest: tiktoken keeps copies by name, of an older file too.
            ranks = load_tiktoken_bpe(str(self.file), sha256_of(self.file))
            return tiktoken.Encoding(
                self.file.stem, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special
            )
        except ValueError as error:
            raise UserError(f"{self.file}: {error}; {AGAIN}") from None


FILES = {
    "tokenizer.json": HUGGINGFACE,
    "tokenizer.model": SENTENCEPIECE,
    "*.tiktoken": TIKTOKEN,
}
