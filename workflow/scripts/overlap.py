"""Look for items of the evaluated tasks in what a stage trains on."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, help="spec file, in .snakemake/specs/")
    parser.add_argument("--items", nargs="+", required=True, help="manifests of the tasks' items")
    parser.add_argument("--data", required=True, help="manifest of tokens, packed rows or prompts")
    parser.add_argument("--tokenizer", nargs="?", help="manifest of the tokenizer of its tokens")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the work")
    parser.add_argument("--output", required=True, help="manifest to write")
    stages.overlap(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
