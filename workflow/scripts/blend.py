"""Give every shard its weight, in each split."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument(
        "--corpora", required=True, nargs="+", help="manifests of the tokenized corpora"
    )
    parser.add_argument("--output", required=True, help="the blend file to write")
    stages.blend(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
