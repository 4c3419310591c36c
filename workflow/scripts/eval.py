"""Gather the scores of all evaluated stages of a run."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument(
        "--models", required=True, nargs="+", help="manifests of the exported models"
    )
    parser.add_argument("--scores", required=True, nargs="+", help="manifests of the scores")
    parser.add_argument("--output", required=True, help="the eval.json to write")
    stages.eval(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
