"""Bring a container image into the site's folder of images."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument(
        "--output", required=True, help="manifest to write; the bytes are elsewhere"
    )
    stages.image(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
