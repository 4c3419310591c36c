"""Turn conversations into tokens and a mask of what to learn."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument(
        "--sources", required=True, help="folder of downloaded or generated source files"
    )
    parser.add_argument("--tokenizer", required=True, help="manifest of the tokenizer")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the work")
    parser.add_argument("--output", required=True, help="manifest to write; the bytes go beside it")
    stages.render(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
