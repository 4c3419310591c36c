"""Take an existing model in the place of the stages before a run's first."""

from argparse import ArgumentParser

from nemoflow import machine, stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--spec", required=True, help="spec file, in .snakemake/specs/; it names the model's folder"
    )
    parser.add_argument("--output", required=True, help="manifest to write; the bytes go beside it")
    parser.add_argument("--parity", required=True, help="verdict on the conversion, to write")
    parser.add_argument("--log", required=True, help="log file, appended to")
    machine.arguments(parser)
    stages.import_model(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
