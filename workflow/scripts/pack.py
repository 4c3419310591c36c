"""Pack rendered conversations into rows of equal length, or import rows that exist."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument(
        "--rendered", required=True, nargs="*", help="manifests of the sources; none of an import"
    )
    parser.add_argument("--tokenizer", nargs="?", help="manifest of the tokenizer, for an import")
    parser.add_argument("--output", required=True, help="manifest to write; the bytes go beside it")
    stages.pack(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
