"""Gather how many items of each task a run's training data holds."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--overlaps", nargs="+", required=True, help="manifests of the searches")
    parser.add_argument("--output", required=True, help="file to write")
    stages.contamination(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
