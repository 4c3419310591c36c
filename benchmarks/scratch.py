"""The folder in which the benchmark works: inputs, the tokenizer, and our products of each."""

import random
import shutil
import sys
from pathlib import Path
from typing import Any

import debian_text
import large_tokenizer
import yaml

from nemoflow import manifest, specs
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.files import write_whole
from nemoflow.progress import say

ROOT = Path(__file__).parents[1]
MEGA = 10**6
ROOM = 6  # times the largest input: copies of it, and the ids of one route
WORD, DOCUMENT = 9, 4000  # letters, bytes of random words
LETTERS = bytes(ord("a") + byte % 26 for byte in range(256))


class Scratch:
    """Inputs by name, mixed-30 being the first 30 MB of the corpus, words-30 random words.

    `checkout` is where our scripts run: config, specs, plans and the tokenizer's product.
    """

    def __init__(self, folder: Path, corpus: Path | None):
        self.folder = folder.resolve()
        self.corpus = corpus.resolve() if corpus else self.folder / "corpus.jsonl"
        self.checkout = self.folder / "checkout"
        self.tokenizer = self.checkout / "results/data/tokenizers/large"
        self.outputs = self.folder / "outputs"

    def prepare(self, sizes: list[int], words: int) -> None:
        """Make what is missing of the corpus, its beginnings, the random words, the tokenizer."""
        self.begin(max(sizes), ROOM * max(*sizes, words))
        for size in sizes:
            self.cut(size)
        if words:
            self.write_words(words)

    def begin(self, size: int, room: int) -> None:
        """Make what is missing of the corpus and the tokenizer.

        UserError where the corpus has less than `size` MB, or the disk less than `room` MB free.
        """
        for folder in ("inputs", "outputs", "logs", "checkout/config"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(self.folder).free // MEGA) < room:
            raise UserError(
                f"{self.folder}: {free:,} MB are free, these sizes take {room:,};"
                " name another folder with --work, or smaller sizes"
            )
        if not self.corpus.exists():
            debian_text.build(self.folder, self.corpus)
        if (there := self.corpus.stat().st_size // MEGA) < size:
            raise UserError(f"{self.corpus} has {there:,} MB, {size:,} are needed; ask for less")
        self.make_tokenizer()

    def input(self, name: str) -> Path:
        """The JSON lines of an input."""
        return self.folder / "inputs" / f"{name}.jsonl"

    def pieces(self, name: str, count: int) -> Path:
        """A folder with an input in `count` files, for what works on one file at a time."""
        return self.folder / "inputs" / f"{name}-in-{count}"

    def cut(self, size: int) -> None:
        """The whole lines in the first `size` MB of the corpus."""
        path, left = self.input(f"mixed-{size}"), size * MEGA
        temporary = path.with_suffix(".new")
        with open(self.corpus, "rb") as corpus, open(temporary, "wb") as output:
            for line in corpus:
                if (left := left - len(line)) < 0:
                    break
                output.write(line)
        temporary.replace(path)

    def split(self, name: str, count: int) -> None:
        """Lay an input into as many files."""
        folder = self.pieces(name, count)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = self.input(name)
        with open(path, "rb") as lines:
            for piece in range(count):
                end = path.stat().st_size * (piece + 1) // count
                with open(folder / f"{piece}.jsonl", "wb") as output:
                    while lines.tell() < end:
                        output.write(lines.readline())

    def write_words(self, size: int) -> None:
        """Words of nine random letters: no cache of words ever has them."""
        path, draw = self.input(f"words-{size}"), random.Random(0)
        if path.exists():
            return
        temporary = path.with_suffix(".new")
        with open(temporary, "wb") as output:
            while output.tell() < size * MEGA:
                text = bytearray(draw.randbytes(DOCUMENT).translate(LETTERS))
                text[WORD :: WORD + 1] = b" " * (DOCUMENT // (WORD + 1))
                output.write(b'{"text": "' + text.strip() + b'"}\n')
        temporary.replace(path)

    def make_tokenizer(self) -> None:
        """Train the tokenizer where it is missing, and make a product of it."""
        product = self.tokenizer.with_suffix(".json")
        if product.exists():
            return
        if not (self.tokenizer / "tokenizer.json").exists():
            say("training a tokenizer of 131,072 ids, about a minute …")
            large_tokenizer.build(self.corpus, self.tokenizer)
        identity = {"stage": "tokenizer", "version": specs.VERSIONS["tokenizer"]}
        manifest.write(product, identity, vocabulary=large_tokenizer.VOCABULARY)

    def plan(self, name: str, log: Path) -> list[str]:
        """The command of our rule `plan` for an input, without what an earlier one remembers."""
        self.configure(name)
        shutil.rmtree(self.checkout / "results/data/sources", ignore_errors=True)
        told = self.arguments(name)
        arguments = ["--spec", self.spec("plan", name), "--sources", told["sources"]]
        script = ROOT / "workflow/scripts/plan.py"
        return [sys.executable, str(script), *arguments, "--output", told["plan"]]

    def arguments(self, name: str) -> dict[str, str]:
        """The arguments of our rule `tokens`."""
        return {
            "spec": self.spec("tokens", name),
            "sources": "results/data/sources",
            "plan": f"results/data/plans/{name}.json",
            "tokenizer": "results/data/tokenizers/large.json",
            "part": "0000",
            "output": f"results/data/tokens/large/{name}.parts/0000.json",
        }

    def spec(self, stage: str, name: str) -> str:
        """The file of a job's spec."""
        wildcards: dict[str, Any] = {"corpus": name}
        if stage == "tokens":
            wildcards |= {"tokenizer": "large", "part": "0000"}
        folder = self.checkout / ".snakemake/specs"
        return str(specs.of(Config(self.checkout / "config"), stage, wildcards).write(folder))

    def configure(self, name: str) -> None:
        """Write the config of an input: all of it for training, as the peers do."""
        tokenizer = {"hub": "none/here", "vocab_size": large_tokenizer.VOCABULARY}
        corpus = {
            "source": {"local": str(self.input(name))},
            "parts": 1,
            "splits": {"valid": 0, "test": 0},
        }
        for path, content in (("tokenizers/large", tokenizer), (f"corpora/{name}", corpus)):
            write_whole(self.checkout / f"config/{path}.yaml", yaml.safe_dump(content))
