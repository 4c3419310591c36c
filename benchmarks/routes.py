"""The routes from JSON lines to token ids that the benchmark compares: ours and the peers."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from large_tokenizer import EOS
from scratch import Scratch

from nemoflow.errors import UserError
from nemoflow.files import sha256_of
from nemoflow.progress import say

ROOT = Path(__file__).parents[1]
HERE = ROOT / "benchmarks"
PEERS = ROOT / ".venv-benchmarks"
MEGATRON = ROOT / ".venv-megatron/bin/python"
ANY = 10**9  # MB
SLOW = 300  # MB: a peer of some MB/s is not asked for more
OURS = "nemoflow tokens"
LIMIT = "limit: gigatoken alone, rows in memory"


@dataclass(frozen=True)
class Route:
    """A command that tokenizes an input, and where its ids then lie.

    `command` is given the name of an input; `ids` are the files whose bytes, one behind the other,
    are the ids of all documents, `index` the .idx; `most` is the largest input in MB.
    """

    name: str
    folder: Path
    command: Callable[[str], list]
    ids: str = ""
    index: str = ""
    most: int = ANY
    environment: Mapping[str, str] = field(default_factory=dict)


def routes(scratch: Scratch, workers: int, megatron: Path | None) -> tuple[list[Route], list[str]]:
    """What can be measured here, ours first; and lines on what cannot."""
    found = [ours(scratch, workers)]
    missing = []
    try:
        found += megatron_lm(scratch, workers, megatron)
    except UserError as error:
        missing.append(f"Megatron-LM, classic and fast path: not measured, {error}")
    return [*found, *peers(scratch, workers), limit(scratch, workers)], missing


def ours(scratch: Scratch, workers: int) -> Route:
    """The rule `tokens`, by its script."""

    def command(corpus: str) -> list:
        told = scratch.arguments(corpus)
        arguments = [part for name, value in told.items() for part in (f"--{name}", value)]
        script = ROOT / "workflow/scripts/tokens.py"
        return [sys.executable, script, *arguments, "--workers", str(workers)]

    shard = "results/data/tokens/large/*/0000/train_00000"
    return Route(OURS, scratch.checkout, command, f"{shard}.bin", f"{shard}.idx")


def limit(scratch: Scratch, workers: int) -> Route:
    """gigatoken, and nothing else."""
    tokenizer = scratch.tokenizer / "tokenizer.json"

    def command(corpus: str) -> list:
        return [sys.executable, HERE / "limit.py", scratch.input(corpus), tokenizer, str(workers)]

    return Route(LIMIT, scratch.outputs, command)


def peers(scratch: Scratch, workers: int) -> list[Route]:
    """Hugging Face's tokenizers in a pool of processes, and datatrove."""
    python, work = environment(), scratch.outputs

    def pool(corpus: str) -> list:
        script = HERE / "hugging_face.py"
        return [python, script, scratch.input(corpus), scratch.tokenizer, "pool", str(workers)]

    def trove(corpus: str) -> list:
        tokenizer = scratch.tokenizer / "tokenizer.json"
        folder = scratch.pieces(corpus, workers)
        return [python, HERE / "by_datatrove.py", folder, tokenizer, EOS, "trove", str(workers)]

    return [
        Route("Hugging Face tokenizers, multiprocessing", work, pool, "pool.bin", "pool.idx", SLOW),
        Route("datatrove", work, trove, "trove/tokens/*.ds", "", SLOW),
    ]


def megatron_lm(scratch: Scratch, workers: int, checkout: Path | None) -> list[Route]:
    """The two programs of Megatron-LM; UserError where they cannot be run."""
    if checkout is None:
        raise UserError("a checkout of Megatron-LM is named by --megatron DIR")
    if not (checkout / "tools/preprocess_data.py").is_file():
        raise UserError(f"{checkout} is no checkout of Megatron-LM: no tools/preprocess_data.py")
    if not MEGATRON.exists():
        raise UserError("its environment is missing: make .venv-megatron/installed")
    told = {
        "PYTHONPATH": str(ROOT / "workflow"),
        "PYTHONPYCACHEPREFIX": str(scratch.folder / "pycache"),
        "RAYON_NUM_THREADS": str(workers),
    }

    def route(program: str, most: int, *arguments: str) -> Route:
        def command(corpus: str) -> list:
            run = megatron_program(scratch, checkout.resolve(), f"tools/{program}.py")
            return [*run, "--input", scratch.input(corpus), *arguments]

        written = [f"megatron_text_document.{end}" for end in ("bin", "idx")]
        name = f"Megatron-LM {program}"
        return Route(name, scratch.outputs, command, *written, most, told)

    found = [route("preprocess_data", SLOW, "--workers", str(workers))]
    if (checkout / "tools/preprocess_data_fast.py").is_file():
        found.append(route("preprocess_data_fast", ANY, "--use-gigatoken"))
    return found


def megatron_program(scratch: Scratch, checkout: Path, program: str) -> list:
    """The beginning of a command line of Megatron-LM, which may import the peers' gigatoken."""
    (peers,) = environment().parents[1].glob("lib/python*/site-packages")
    told = {
        "output-prefix": "megatron",
        "tokenizer-type": "HuggingFaceTokenizer",
        "tokenizer-model": scratch.tokenizer,
    }
    arguments = [part for name, value in told.items() for part in (f"--{name}", value)]
    run = [MEGATRON, "-W", "ignore", HERE / "megatron_tool.py", checkout, peers, program]
    return [*run, *arguments, "--append-eod"]


def environment() -> Path:
    """The Python of the peers' environment, made where it is missing or of other pins."""
    python, built = PEERS / "bin/python", PEERS / ".built"
    listed = ROOT / "envs/benchmarks.txt"
    wanted = sha256_of(listed)
    if built.exists() and built.read_text() == wanted:
        return python
    say("installing the peers into .venv-benchmarks …")
    shutil.rmtree(PEERS, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", listed]
    if subprocess.run(pip).returncode:
        raise UserError("pip cannot install envs/benchmarks.txt, as it says above")
    built.write_text(wanted)
    return python
