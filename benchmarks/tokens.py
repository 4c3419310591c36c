"""The rule `tokens` beside its peers: the same text, tokenizer, cores and minute.

    python benchmarks/tokens.py [--sizes 30 300 1000] [--megatron DIR]

Measures whole processes, from their start with cold caches of their own to the last byte written,
in turns. What it needs it makes once: a corpus from Debian packages (400 MB are downloaded), a
tokenizer of 131,072 ids, and the peers' environment. Peers are Hugging Face's tokenizers in a pool
of processes, as Megatron-LM's classic preprocess_data uses them, and datatrove; given a checkout,
Megatron-LM's own two programs (in .venv-megatron). Slow peers are measured up to 300 MB.

The limit is gigatoken alone in as many processes, on the same rows in memory. Memory is the peak
of all processes of a route together, a page that n of them share counted once (PSS).
"""

import argparse
import hashlib
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from measuring import Measure, measure
from routes import LIMIT, OURS, Route, routes
from scratch import MEGA, Scratch

from nemoflow.errors import UserError, report
from nemoflow.progress import say

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT / "workflow"), "PYTHONDONTWRITEBYTECODE": ""}
WARM = 1  # MB that every route tokenizes first, unmeasured: its code is compiled then
Measures = dict[str, list[Measure]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=positive, nargs="+", default=[30, 300, 1000], metavar="MB",
        help="of the input, in MB of JSON lines; default: 30 300 1000",
    )  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=3, help="in turns; default: 3")
    parser.add_argument("--workers", type=positive, default=2, help="processes; default: 2")
    parser.add_argument(
        "--words", type=whole, default=1000, metavar="MB",
        help="of random words, the worst case for memory; default: 1000, 0 leaves them out",
    )  # fmt: skip
    parser.add_argument(
        "--corpus", type=Path, metavar="FILE",
        help='JSON lines with a "text" to measure on, instead of the packages\' text',
    )  # fmt: skip
    parser.add_argument(
        "--megatron", type=Path, metavar="DIR", help="a checkout of Megatron-LM to measure too"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "benchmarks/.work", metavar="DIR",
        help="where inputs, outputs and logs lie; default: benchmarks/.work",
    )  # fmt: skip
    return parser.parse_args()


def whole(text: str, least: int = 0) -> int:
    """A whole number."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} up")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    return whole(text, 1)


def main() -> None:
    """Prepare, measure in turns, print."""
    asked = arguments()
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("memory is read from /proc/PID/smaps_rollup: run this on Linux")
    if asked.corpus and not asked.corpus.is_file():
        raise UserError(f"--corpus {asked.corpus}: there is no such file")
    scratch = Scratch(asked.work, asked.corpus)
    scratch.prepare([WARM, *asked.sizes], asked.words)
    found, missing = routes(scratch, asked.workers, asked.megatron)
    say("one megabyte by each route first, not measured …")
    compete(scratch, found, WARM, 1, asked.workers)
    print("seconds: wall time of the whole process; peak MB: memory of all its processes together")
    for size in asked.sizes:
        lines = compete(scratch, found, size, asked.rounds, asked.workers)
        print(f"\n{size} MB, {asked.workers} workers, medians of {asked.rounds} rounds")
        print(*lines, *missing, sep="\n", flush=True)
    if asked.words:
        name = f"words-{asked.words}"
        plan(scratch, name)
        (taken,) = in_turns(scratch, found[:1], name, 1)[OURS]
        memory = f"{taken.memory / MEGA:,.0f} MB"
        print(f"\n{asked.words} MB of random words: {OURS} {taken.seconds:.1f} s, peak {memory}")


def compete(
    scratch: Scratch, found: list[Route], size: int, rounds: int, workers: int
) -> list[str]:
    """Measure the routes on an input; the lines that tell of it."""
    name = f"mixed-{size}"
    planned = plan(scratch, name)
    scratch.split(name, workers)
    chosen = [route for route in found if size <= route.most]
    lines = list(table(size, in_turns(scratch, chosen, name, rounds), planned))
    slow = [route for route in found if route not in chosen]
    return lines + [f"{r.name}: not measured above {r.most} MB, it is slow" for r in slow]


def plan(scratch: Scratch, name: str) -> Measure:
    """Plan an input: its bytes are digested for the first time."""
    warm(scratch.input(name))
    log = scratch.folder / f"logs/{name}-plan.log"
    return measure(scratch.plan(name, log), scratch.checkout, log, ENVIRONMENT)


def in_turns(scratch: Scratch, chosen: list[Route], name: str, rounds: int) -> Measures:
    """What each route takes in each round; UserError when two write other ids."""
    taken, written = defaultdict(list), {}
    for turn in range(rounds):
        for route in chosen:
            for folder in (scratch.outputs, scratch.checkout / "results/data/tokens"):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            warm(scratch.input(name))
            log = scratch.folder / f"logs/{name}-{route.name.split(':')[0].replace(' ', '-')}.log"
            environment = {**ENVIRONMENT, **route.environment}
            one = measure(route.command(name), route.folder, log, environment)
            taken[route.name].append(one)
            told = f"{route.name} {seconds(route.name, one):.2f} s"
            say(f"{name}, round {turn + 1} of {rounds}: {told}")
            for pattern in filter(None, (route.ids, route.index)):
                compare(route, pattern, written)
    return taken


def compare(route: Route, pattern: str, written: dict[str, tuple[str, str]]) -> None:
    """UserError when a file differs from that of the first route."""
    digest = hashlib.sha256()
    if not (paths := sorted(route.folder.glob(pattern))):
        raise UserError(f"{route.name} wrote no {pattern} in {route.folder}")
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(MEGA):
                digest.update(chunk)
    kind = "index" if pattern == route.index else "ids"
    first, expected = written.setdefault(kind, (route.name, digest.hexdigest()))
    if digest.hexdigest() != expected:
        raise UserError(f"{route.name} and {first} wrote different {kind}")


def warm(path: Path) -> None:
    """Read a file, so that no route waits for the disk."""
    with open(path, "rb") as file:
        while file.read(8 * MEGA):
            pass


def seconds(name: str, measured: Measure) -> float:
    """Wall seconds of the process; of the limit, those that it prints."""
    return float(measured.said.split()[-1]) if name == LIMIT else measured.seconds


def table(size: int, taken: Measures, planned: Measure) -> Iterator[str]:
    """The lines of what the routes took."""
    middle = {
        name: statistics.median(seconds(name, one) for one in rounds)
        for name, rounds in taken.items()
    }
    yield f"{'':42}{'seconds':>9}{'MB/s':>8}{'to ours':>9}{'peak MB':>9}"
    for name, took in middle.items():
        line = f"{name:42}{took:9.2f}{size / took:8.1f}"
        if name != LIMIT:
            memory = max(one.memory for one in taken[name]) / MEGA
            line += f"{took / middle[OURS]:8.1f}×{memory:9,.0f}"
        yield line
    yield f"{OURS} reaches {middle[LIMIT] / middle[OURS]:.0%} of the limit"
    yield f"nemoflow plan, which comes once before a corpus' tokens: {planned.seconds:.2f} s"
    yield "all routes wrote the same ids, byte for byte, and those that write an .idx the same .idx"


if __name__ == "__main__":
    report(main)
