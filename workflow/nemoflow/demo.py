"""Build a run on this machine and say how long it took and what it scored: `make demo`."""

import subprocess
import sys
import time

from nemoflow import scores
from nemoflow.errors import UserError, report


def main() -> None:
    """Build eval.json and report.html of the run named on the command line."""
    run = sys.argv[1]
    targets = [f"results/{run}/eval.json", f"results/{run}/report.html"]
    started = time.monotonic()
    snakemake = [sys.executable, "-m", "snakemake", "--profile", "profiles/local"]
    done = subprocess.run([*snakemake, "--quiet", "rules", "progress", "host", "--", *targets])
    if done.returncode:
        raise UserError(f"{run} was not built; the same command goes on from where it stopped")
    seconds = time.monotonic() - started
    print("\n".join(["", *scores.table(scores.read(targets[0])), ""]))
    print(f"{targets[1]}: everything on one page")
    print(f"pipeline time {int(seconds) // 60}:{int(seconds) % 60:02d} (installation aside)")


if __name__ == "__main__":
    report(main)
