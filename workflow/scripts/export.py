"""Write a stage's checkpoint in Hugging Face format."""

from argparse import ArgumentParser

from nemoflow import machine, stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--checkpoint", required=True, help="checkpoint manifest")
    parser.add_argument(
        "--base", nargs="?", help="manifest of the model that the checkpoint's adapters belong to"
    )
    parser.add_argument("--tokenizer", required=True, help="manifest of the tokenizer")
    parser.add_argument("--output", required=True, help="manifest to write; the bytes go beside it")
    parser.add_argument("--parity", required=True, help="verdict on the conversion, to write")
    parser.add_argument("--log", required=True, help="log file, appended to")
    machine.arguments(parser)
    stages.export(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
