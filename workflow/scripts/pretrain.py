"""Train one phase on its blend, from the phase before it."""

from argparse import ArgumentParser

from nemoflow import machine, stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--blend", required=True, help="blend file")
    parser.add_argument(
        "--corpora", required=True, nargs="+", help="manifests of the tokenized corpora"
    )
    parser.add_argument(
        "--init", nargs="?", help="checkpoint manifest of the phase before; none for the first"
    )
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint manifest to write; the bytes go beside it"
    )
    parser.add_argument("--curve", required=True, help="curve to write, CSV")
    parser.add_argument("--log", required=True, help="log file, appended to")
    machine.arguments(parser)
    stages.pretrain(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
