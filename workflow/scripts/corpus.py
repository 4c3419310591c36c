"""Join the parts of a corpus into one product, or import existing shards as one."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument(
        "--parts", required=True, nargs="*", help="manifests of the parts; none of an import"
    )
    parser.add_argument("--tokenizer", nargs="?", help="manifest of the tokenizer, for an import")
    parser.add_argument("--output", required=True, help="manifest to write; the bytes go beside it")
    stages.corpus(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
