"""Packing beside its peers: the same lengths, each route alone in a process, in turns.

    python benchmarks/pack.py [--count 1000000] [--rounds 3]

Lengths are drawn lognormal and cut to 16 .. pack size: median 600 for rows of 4,096 tokens, 3,000
for rows of 262,144. Peers are the loop of trl's packing (best-fit-decreasing, in .venv-benchmarks,
which is made once) and Megatron-Bridge's first-fit-decreasing (in .venv-megatron). Timed is the
choice of bins alone, without tokens and imports. The bound on bins is the sum of lengths by the
pack size, rounded up.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from routes import MEGATRON, ROOT, environment
from tokens import positive

from nemoflow.errors import UserError, report
from nemoflow.progress import say

CASES = {4096: (600, 1.1), 262144: (3000, 1.5)}  # pack size: median and sigma of the lengths
OURS = "ours"
NAMES = {
    OURS: "nemoflow, best fit",
    "first_fit_shuffle": "nemoflow, first fit, shuffled",
    "trl": "trl {}, loop",
    "bridge": "Megatron-Bridge {}, first-fit-decreasing",
}
FASTER = {"trl": 20, "bridge": 15}  # what is claimed: times as fast as each,
ABOVE, MEMORY, SORTED = 1e-4, 200e6, 0.03  # bins above the bound, bytes, and bins in no order
Told = dict[str, list[dict]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=positive, default=10**6, help="lengths; default: a million")
    parser.add_argument("--rounds", type=positive, default=3, help="in turns; default: 3")
    return parser.parse_args()


def main() -> None:
    """Measure in turns, print."""
    asked = arguments()
    pythons = {OURS: sys.executable, "first_fit_shuffle": sys.executable, "trl": environment()}
    if MEGATRON.exists():
        pythons["bridge"] = MEGATRON
    held = True
    for size, (median, sigma) in CASES.items():
        drawn = np.random.default_rng(asked.count).lognormal(np.log(median), sigma, asked.count)
        lengths = np.clip(drawn, 16, size).astype(np.int64)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "lengths.npy"
            np.save(path, lengths)
            told = in_turns(pythons, path, size, asked.rounds)
        bound = -(-int(lengths.sum()) // size)
        print(f"\n{asked.count:,} lengths, rows of {size:,} tokens, at least {bound:,} of them;")
        print(f"medians of {asked.rounds} rounds")
        print(*table(told, bound), sep="\n", flush=True)
        for claim, holds in claims(told, bound):
            print(f"{'holds' if holds else 'FAILS'}: {claim}", flush=True)
            held &= holds
    if "bridge" not in pythons:
        raise UserError("Megatron-Bridge is not measured: make .venv-megatron/installed")
    sys.exit(not held)


def in_turns(pythons: dict, path: Path, size: int, rounds: int) -> Told:
    """What each route says of itself in each round."""
    told: Told = {name: [] for name in pythons}
    for turn in range(rounds):
        for name, python in pythons.items():
            told[name].append(packed(python, name, path, size))
            took = told[name][-1]["seconds"]
            say(f"rows of {size}, round {turn + 1} of {rounds}: {name} {took:.3f} s")
    return told


def packed(python: Path | str, name: str, path: Path, size: int) -> dict:
    """Run one route; UserError when it fails."""
    command = [str(python), str(ROOT / "benchmarks/packers.py"), name, str(path), str(size)]
    known = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)}\nfailed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def middle(told: Told, name: str) -> float:
    """The median of a route's seconds."""
    return statistics.median(one["seconds"] for one in told[name])


def table(told: Told, bound: int) -> Iterator[str]:
    """The lines of what the routes took."""
    yield f"{'':46}{'seconds':>9}{'to ours':>9}{'rows':>9}{'too many':>10}{'peak MB':>9}"
    for name, rounds in told.items():
        took, bins = middle(told, name), rounds[0]["bins"]
        peak = max(one["memory"] for one in rounds) / 1e6
        line = f"{NAMES[name].format(rounds[0].get('version', '')):46}{took:9.3f}"
        line += f"{took / middle(told, OURS):8.1f}×{bins:9,}{bins / bound - 1:10.4%}{peak:9,.0f}"
        yield line


def claims(told: Told, bound: int) -> Iterator[tuple[str, bool]]:
    """What the README says, and whether it is so here."""
    ours = told[OURS]
    most = max(one["bins"] for one in ours)
    yield f"at most {ABOVE:.2%} rows above the bound", most <= bound * (1 + ABOVE)
    peak = max(one["memory"] for one in ours)
    yield f"under {MEMORY / 1e6:.0f} MB, the whole process", peak < MEMORY
    yield "rows not sorted by length", max(one["sorted"] for one in ours) < SORTED
    for name in filter(told.__contains__, FASTER):
        ratio = middle(told, name) / middle(told, OURS)
        peer = NAMES[name].format(told[name][0]["version"])
        yield f"at least {FASTER[name]} times as fast as {peer}", ratio >= FASTER[name]


if __name__ == "__main__":
    report(main)
