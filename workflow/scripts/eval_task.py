"""Score an exported model on one task."""

from argparse import ArgumentParser

from nemoflow import machine, stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--model", required=True, help="manifest of the exported model")
    parser.add_argument(
        "--prompts", nargs="?", help="manifest of the prompts whose validation split are the items"
    )
    parser.add_argument("--output", required=True, help="manifest to write; the bytes go beside it")
    parser.add_argument("--log", required=True, help="log file, appended to")
    machine.arguments(parser)
    stages.eval_task(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
