"""Put a checkpoint and all that led to it into DVC's cache, with pointers."""

from argparse import ArgumentParser

from nemoflow import stages
from nemoflow.errors import report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="manifest of the checkpoint")
    parser.add_argument("--output", required=True, help="mark to write: what was sealed")
    stages.seal(**vars(parser.parse_args()))


if __name__ == "__main__":
    report(main)
