"""Average a phase's last checkpoints."""

from argparse import ArgumentParser

from nemoflow import machine, stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--checkpoint", required=True, help="manifest of the phase's checkpoint")
    parser.add_argument("--blend", nargs="?", help="blend.json, whose validation split is measured")
    parser.add_argument("--corpora", nargs="*", default=[], help="manifests of the blend's corpora")
    parser.add_argument("--output", required=True, help="manifest to write; the bytes go beside it")
    parser.add_argument("--log", required=True, help="log file, appended to")
    machine.arguments(parser)
    stages.merge(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
