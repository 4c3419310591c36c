"""Fine-tune a pretrained model on packed conversations."""

from argparse import ArgumentParser

from nemoflow import machine, stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--init", required=True, help="checkpoint manifest to start from")
    parser.add_argument("--data", required=True, help="manifest of the packed rows")
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint manifest to write; the bytes go beside it"
    )
    parser.add_argument("--curve", required=True, help="curve to write, CSV")
    parser.add_argument("--log", required=True, help="log file, appended to")
    machine.arguments(parser)
    stages.sft(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
