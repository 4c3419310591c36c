"""Write down the texts of a task's items."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--sources", required=True, help="folder of downloaded source files")
    parser.add_argument("--prompts", nargs="?", help="manifest of the prompts that hold the items")
    parser.add_argument("--output", required=True, help="manifest to write; the bytes go beside it")
    stages.eval_items(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
