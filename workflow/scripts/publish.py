"""Push a run and all that it was made from to DVC's remote, and say what to commit."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--eval", required=True, help="its eval.json")
    parser.add_argument("--output", required=True, help="mark to write: what was published")
    stages.publish(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
