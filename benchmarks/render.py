"""The rules `render` and `pack` beside a peer: the same conversations, template, cores and minute.

    python benchmarks/render.py [--size 100] [--rounds 3]

Conversations become packed Parquet with loss masks: ours by the scripts of both rules, one after
the other, and the peer by transformers' `apply_chat_template` with masks for each conversation in
datasets' `map`, trl's `pack_dataset`, and Parquet. Both get the template config/templates/
nemotron3.jinja. Measures whole processes in turns, from their start to the last byte written;
each time the sequences of both are compared. Then ours on four times as much. Snakemake's own
seconds are left out, as are those of the tokenizer's product.

What it needs it makes once: a corpus from Debian packages (400 MB are downloaded), conversations
and a tokenizer of 131,072 ids of it, and the peers' environment. Memory is the peak of all
processes of a route together, a page that n of them share counted once (PSS).
"""

import argparse
import re
import shlex
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import chats
import large_tokenizer
import pyarrow.parquet as pq
import same_rows
import yaml
from measuring import Measure, measure
from routes import ROOT, environment
from scratch import MEGA, Scratch
from tokens import ENVIRONMENT, positive, warm

from nemoflow import specs
from nemoflow.config import Config
from nemoflow.errors import UserError, report
from nemoflow.files import read_json, write_whole
from nemoflow.progress import say

TEMPLATE = ROOT / "config/templates/nemotron3.jinja"
OURS = "nemoflow render, pack"
PEERS = ("transformers", "datasets", "trl", "tokenizers")
WARM = 1  # MB that both routes take first, unmeasured: their code is compiled then
LARGER = 4  # times as much, for the memory
FASTER, FLAT = 8, 1.3  # what is claimed: times as fast; peak on LARGER to that on the input


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=positive, default=100, metavar="MB", help="of the input; default: 100"
    )
    parser.add_argument("--rounds", type=positive, default=3, help="in turns; default: 3")
    parser.add_argument("--workers", type=positive, default=2, help="processes; default: 2")
    parser.add_argument(
        "--pack-size", type=positive, default=4096, metavar="N", help="tokens; default: 4096"
    )
    parser.add_argument(
        "--corpus", type=Path, metavar="FILE",
        help='JSON lines with a "text" to make conversations of, instead of the packages\' text',
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=ROOT / "benchmarks/.work", metavar="DIR",
        help="where inputs, outputs and logs lie; default: benchmarks/.work",
    )  # fmt: skip
    return parser.parse_args()


class Routes:
    """Both ways from the conversations of an input to packed Parquet."""

    def __init__(self, scratch: Scratch, pack_size: int, workers: int):
        self.scratch, self.pack_size, self.workers = scratch, pack_size, workers
        self.python = environment()
        pins = re.findall(r"(?m)^(\S+)==(\S+)", (ROOT / "envs/benchmarks.txt").read_text())
        versions = dict(pins)
        self.peer = ", ".join(f"{name} {versions[name]}" for name in PEERS)
        self.packed = scratch.checkout / "results/data/packed"
        self.theirs = scratch.outputs / "packed.parquet"

    def input(self, size: int) -> Path:
        """The conversations of an input."""
        return self.scratch.input(f"chats-{size}")

    def ours(self, size: int) -> Measure:
        """The scripts of our two rules, with nothing left of an earlier time."""
        for folder in ("rendered", "packed", "sources"):
            shutil.rmtree(self.scratch.checkout / "results/data" / folder, ignore_errors=True)
        name = f"chats-{size}"
        self.configure(name)
        rendered = f"results/data/rendered/{name}/chats.json"
        render = {
            "spec": self.spec("render", mixture=name, source="chats"),
            "sources": "results/data/sources",
            "tokenizer": "results/data/tokenizers/large.json",
            "workers": str(self.workers),
            "output": rendered,
        }
        packed = f"results/data/packed/{name}.json"
        pack = {"spec": self.spec("pack", mixture=name), "rendered": rendered, "output": packed}
        both = f"{script('render', render)} && {script('pack', pack)}"
        return self.measure(["sh", "-c", both], name, "ours", self.scratch.checkout)

    def trl(self, size: int) -> Measure:
        """The peer, with an empty cache."""
        shutil.rmtree(self.scratch.outputs, ignore_errors=True)
        self.scratch.outputs.mkdir()
        given = [self.input(size), self.scratch.tokenizer, TEMPLATE, self.pack_size, self.theirs]
        command = [self.python, ROOT / "benchmarks/by_trl.py", *given, self.workers]
        told = {"HF_HOME": str(self.scratch.outputs / "home"), "HF_HUB_OFFLINE": "1"}
        return self.measure(command, f"chats-{size}", "trl", self.scratch.outputs, told)

    def measure(
        self, command: list, name: str, who: str, folder: Path, told: Mapping[str, str] = {}
    ) -> Measure:
        """Run a command, its input in the page cache."""
        warm(self.scratch.input(name))
        log = self.scratch.folder / f"logs/{name}-{who}.log"
        return measure(command, folder, log, {**ENVIRONMENT, **told})

    def configure(self, name: str) -> None:
        """Write the config of an input: every row for training, none dropped."""
        files = {
            "tokenizers/large": {"hub": "none/here", "vocab_size": large_tokenizer.VOCABULARY},
            f"mixtures/{name}": {
                "tokenizer": "large",
                "template": str(TEMPLATE.resolve()),
                "pack_size": self.pack_size,
                "valid_fraction": 0,
                "max_dropped": 0,
                "sources": {
                    "chats": {"source": {"local": str(self.scratch.input(name))}, "weight": 1}
                },
            },
        }
        for path, content in files.items():
            write_whole(self.scratch.checkout / f"config/{path}.yaml", yaml.safe_dump(content))

    def spec(self, stage: str, **wildcards: str) -> str:
        """The file of a job's spec."""
        found = specs.of(Config(self.scratch.checkout / "config"), stage, wildcards)
        return str(found.write(self.scratch.checkout / ".snakemake/specs"))

    def facts(self, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """What our manifests of an input tell."""
        of = self.scratch.checkout / "results/data"
        name = f"chats-{size}"
        return read_json(of / f"rendered/{name}/chats.json"), read_json(of / f"packed/{name}.json")


def script(rule: str, given: dict[str, str]) -> str:
    """The command line of a rule's script, for a shell."""
    told = [part for name, value in given.items() for part in (f"--{name}", value)]
    return shlex.join([sys.executable, str(ROOT / f"workflow/scripts/{rule}.py"), *told])


def main() -> None:
    """Prepare, measure in turns, print."""
    asked = arguments()
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("memory is read from /proc/PID/smaps_rollup: run this on Linux")
    scratch = Scratch(asked.work, asked.corpus)
    larger = LARGER * asked.size
    scratch.begin(larger, 8 * larger)
    routes = Routes(scratch, asked.pack_size, asked.workers)
    for size in (WARM, asked.size, larger):
        chats.write(scratch.corpus, routes.input(size), size * MEGA)
    say("one megabyte by each route first, not measured …")
    in_turns(routes, WARM, 1)
    ours, theirs, compared = in_turns(routes, asked.size, asked.rounds)
    rendered, packed = routes.facts(asked.size)
    theirs_rows = pq.ParquetFile(routes.theirs).metadata.num_rows
    more = []
    for turn in range(asked.rounds):
        more.append(routes.ours(larger))
        say(f"{larger} MB, round {turn + 1} of {asked.rounds}: {OURS} {more[-1].seconds:.2f} s")
    print(
        f"{asked.size} MB of JSON lines: {rendered['rows']['in']:,} conversations,"
        f" {rendered['sequences']:,} sequences, {rendered['tokens']:,} tokens;"
        f" rows of {asked.pack_size:,}; {asked.workers} workers, medians of {asked.rounds} rounds"
    )
    print(f"{'':68}{'seconds':>8}{'MB/s':>7}{'peak MB':>9}{'rows':>9}")
    print(line(OURS, asked.size, ours, packed["train"]["rows"]))
    print(line(routes.peer, asked.size, theirs, theirs_rows))
    print(line(f"{OURS}, {larger} MB", larger, more, routes.facts(larger)[1]["train"]["rows"]))
    print(
        f"the same in both, ids and masks: {compared.equal:,} sequences; as text alone,"
        f" since their reasoning begins with a line break: {compared.joined:,}"
    )
    print(*claims(ours, theirs, more), sep="\n")


def in_turns(
    routes: Routes, size: int, rounds: int
) -> tuple[list[Measure], list[Measure], same_rows.Compared]:
    """What both take in each round, and how their sequences compare."""
    path = routes.input(size)
    ours, theirs = [], []
    for turn in range(rounds):
        ours.append(routes.ours(size))
        theirs.append(routes.trl(size))
        told = f"{OURS} {ours[-1].seconds:.2f} s, the peer {theirs[-1].seconds:.2f} s"
        say(f"{size} MB, round {turn + 1} of {rounds}: {told}")
        packed = routes.packed / path.stem / "train"
        compared = same_rows.compare(packed, routes.theirs, routes.scratch.tokenizer)
    return ours, theirs, compared


def line(name: str, size: int, taken: list[Measure], rows: int) -> str:
    """A line of the table."""
    middle = statistics.median(one.seconds for one in taken)
    memory = max(one.memory for one in taken) / MEGA
    return f"{name:68}{middle:8.2f}{size / middle:7.1f}{memory:9,.0f}{rows:9,}"


def claims(ours: list[Measure], theirs: list[Measure], more: list[Measure]) -> Iterator[str]:
    """Whether what is claimed holds."""
    times = [statistics.median(one.seconds for one in taken) for taken in (ours, theirs)]
    peaks = [max(one.memory for one in taken) for taken in (ours, more)]
    faster, grown = times[1] / times[0], peaks[1] / peaks[0]
    yield f"at least {FASTER} times as fast as the peer: {faster:.1f}×, {held(faster >= FASTER)}"
    yield (
        f"memory is flat: {LARGER} times as much input takes {grown:.2f}× the memory,"
        f" {held(grown <= FLAT)}"
    )


def held(claim: bool) -> str:
    """In words."""
    return "holds" if claim else "does NOT hold"


if __name__ == "__main__":
    report(main)
