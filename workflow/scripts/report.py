"""Draw the page about a run."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--eval", required=True, help="eval.json of the run")
    parser.add_argument("--imported", nargs="?", help="manifest of the imported model, if any")
    parser.add_argument("--blends", nargs="*", default=[], help="blend files, phase by phase")
    checkpoints = "checkpoint manifests, stage by stage"
    parser.add_argument("--checkpoints", nargs="*", default=[], help=checkpoints)
    parser.add_argument("--packed", nargs="?", help="manifest of the packed rows, if there is SFT")
    parser.add_argument("--parity", nargs="*", default=[], help="verdicts on conversions")
    parser.add_argument("--contamination", nargs="?", help="items found in training data, if asked")
    parser.add_argument("--output", required=True, help="the page to write")
    stages.report(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
