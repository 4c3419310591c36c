"""Publish and pull of a run with many products, beside plain `dvc add`, `push` and `pull`.

    python benchmarks/publish.py [--products 300] [--bytes 3e9] [--folder DIR]

The run is super3-tiny with as many corpora as it takes, its stages replaced by `stand_in.py`. Both
sides store the same bytes, one after the other on the same disk. Prints seconds and their ratios,
and how long a publication with nothing to do and a dry run in a fresh clone take.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OTHERS = 20  # about as many products of the run are no corpora
CODE = (
    "Snakefile",
    "rules",
    "config",
    "workflow",
    "profiles",
    ".gitignore",
    ".dvcignore",
    ".dvc/config",
)
TARGET = "results/bench/eval.json"


def run(folder: Path, *command: str, bytes_each: int = 0) -> str:
    """Run a command in a folder; what it prints."""
    told = {"PYTHONPATH": str(folder / "workflow"), "STAND_IN_BYTES": str(bytes_each)}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **told}, text=True, capture_output=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:8])} …\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def seconds(folder: Path, *command: str) -> float:
    """How long a command takes, once what earlier ones wrote is on disk."""
    os.sync()
    began = time.monotonic()
    run(folder, *command)
    return time.monotonic() - began


def snakemake(*arguments: str) -> list[str]:
    """A command line of Snakemake."""
    return [sys.executable, "-m", "snakemake", "--profile", "profiles/local", *arguments]


def dvc(*arguments: str) -> list[str]:
    """A command line of DVC."""
    return [sys.executable, "-m", "dvc", *arguments]


def git(folder: Path, *arguments: str) -> None:
    """Run git as somebody."""
    run(folder, "git", "-c", "user.name=b", "-c", "user.email=b@localhost", *arguments)


def checkout(folder: Path, corpora: int) -> None:
    """The product's code with a run of many corpora and the stand-in for its scripts."""
    for name in CODE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    for script in (folder / "workflow/scripts").glob("*.py"):
        if script.stem not in ("seal", "publish"):
            shutil.copy2(ROOT / "benchmarks/stand_in.py", script)
    names = [f"bench-{number:04d}" for number in range(corpora)]
    for number, name in enumerate(names):
        (folder / f"config/corpora/{name}.yaml").write_text(
            f"source: {{builtin: facts, seed: {number}, count: 10}}\nparts: 1\n"
            "splits: {valid: 0.05, test: 0.05}\n"
        )
    weights = ", ".join(f"{name}: 1" for name in names)
    (folder / "config/blends/bench.yaml").write_text(f"weights: {{{weights}}}\n")
    (folder / "config/bench.yaml").write_text(
        "extends: super3-tiny\n"
        "pretrain: {phases: {phase1: {blend: bench}, phase2: {blend: bench}}}\n"
    )
    git(folder, "init", "--quiet", "--initial-branch=main")


def plain(origin: Path, folder: Path) -> dict[str, float]:
    """The same bytes through DVC alone, and committed."""
    products = [path.with_suffix("") for path in sorted((origin / "results").rglob("*.dvc"))]
    for product in products:
        shutil.copytree(product, folder / product.relative_to(origin))
    git(folder, "init", "--quiet")
    run(folder, *dvc("init", "--quiet"))
    shutil.copy2(ROOT / ".gitignore", folder)
    run(folder, *dvc("remote", "add", "--default", "storage", str(folder.parent / "plain-remote")))
    places = [str(product.relative_to(origin)) for product in products]
    took = {
        "dvc add": seconds(folder, *dvc("add", *places)),
        "dvc push": seconds(folder, *dvc("push")),
    }
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=plain")
    return took


def ours(folder: Path) -> dict[str, float]:
    """Publication, the same again, and a commit of it."""
    run(folder, *dvc("remote", "add", "--default", "storage", str(folder.parent / "our-remote")))
    publish = snakemake("--", "results/bench/publish")
    took = {"publish": seconds(folder, *publish), "publish again": seconds(folder, *publish)}
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=ours")
    return took


def pulls(ours: Path, plain: Path) -> dict[str, float]:
    """A dry run in a clone of ours; the quickest of three pulls into clones of either side."""
    commands = {ours: [sys.executable, "-m", "nemoflow", "pull"], plain: dvc("pull")}
    took: dict[Path, list[float]] = {ours: [], plain: []}
    for attempt in range(3):
        for origin, command in commands.items():
            clone = origin.with_name(f"{origin.name}-clone")
            git(origin, "clone", "--quiet", str(origin), str(clone))
            if origin is ours and not attempt:
                dry = seconds(clone, *snakemake("-n", "--", TARGET))
            took[origin].append(seconds(clone, *command))
            shutil.rmtree(clone)
    return {"dry run": dry, "ours": min(took[ours]), "plain": min(took[plain])}


def main() -> None:
    """Build, publish, pull; print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--products", type=int, default=300)
    parser.add_argument("--bytes", type=float, default=3e9, help="of all products together")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as work:
        folder, corpora = Path(work) / "ours", asked.products - OTHERS
        checkout(folder, corpora)
        print(f"building {asked.products} products with the stand-in …", flush=True)
        run(folder, *snakemake("--", TARGET), bytes_each=int(asked.bytes / corpora))
        mine = ours(folder)
        manifests = len(list((folder / "results").rglob("*.json")))
        pointers = list((folder / "results").rglob("*.dvc"))
        theirs = plain(folder, Path(work) / "plain")
        pulled = pulls(folder, Path(work) / "plain")
    print(f"{len(pointers)} products, {asked.bytes / 1e9:.1f} GB, {manifests} manifests")
    for name, took in {**theirs, **mine}.items():
        print(f"{name} {took:.1f} s")
    print(
        f"a clone: dry run {pulled['dry run']:.1f} s, nemoflow pull {pulled['ours']:.1f} s,", end=""
    )
    print(f" dvc pull {pulled['plain']:.1f} s")
    print(f"publish ÷ (dvc add + dvc push): {mine['publish'] / sum(theirs.values()):.2f}")
    print(f"nemoflow pull ÷ dvc pull: {pulled['ours'] / pulled['plain']:.2f}")


if __name__ == "__main__":
    main()
