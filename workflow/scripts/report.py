"""Draw the page about a run."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--eval", required=True, help="eval.json of the run")
    parser.add_argument("--blends", required=True, nargs="+", help="blend files, phase by phase")
    parser.add_argument(
        "--checkpoints", required=True, nargs="+", help="checkpoint manifests, stage by stage"
    )
    parser.add_argument("--packed", required=True, help="manifest of the packed rows")
    parser.add_argument("--output", required=True, help="the page to write")
    stages.report(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
