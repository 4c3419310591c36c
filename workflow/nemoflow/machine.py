"""The nodes, GPUs and CPUs that a profile gives to one job."""

import re
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nemoflow.errors import UserError

GRES = re.compile(r"gpu(?::[A-Za-z]\w*)?(?::(\d+))?")  # gpu, gpu:8, gpu:b200:8
COUNTS = ("nodes", "threads", "generate_nodes", "environment_nodes")


@dataclass(frozen=True)
class Machine:
    """What one job has: `gpus` are those of one node, `threads` the CPUs of one process.

    Of an RL job's nodes, some generate and some serve environments and judges; the rest train.
    """

    nodes: int = 1
    gpus: int = 0
    threads: int = 1
    generate_nodes: int = 0
    environment_nodes: int = 0

    def __post_init__(self) -> None:
        if min(self.nodes, self.threads) < 1 or min(self.gpus, self.generate_nodes) < 0:
            raise UserError(f"{self}: nodes and threads are at least 1, nothing is negative")
        if self.environment_nodes < 0 or self.train_nodes < 1:
            raise UserError(
                f"nodes={self.nodes}: {self.generate_nodes} generate and {self.environment_nodes}"
                " serve environments, so none is left to train; correct nodes, generate_nodes or"
                " environment_nodes in the profile"
            )

    @classmethod
    def parse(cls, words: Iterable[str]) -> "Machine":
        """The machine that words like nodes=4 gres=gpu:8 threads=12 tell.

        Raises:
            UserError: an unknown word, or a value that is no number.
        """
        told: dict[str, int] = {}
        for word in words:
            key, _, value = word.partition("=")
            if key == "gres":
                told["gpus"] = gpus_of(value)
            elif key in COUNTS and value.isdecimal():
                told[key] = int(value)
            else:
                raise UserError(
                    f"--machine {word}: write gres=gpu:N, or a number for {', '.join(COUNTS)}"
                )
        return cls(**told)

    @property
    def train_nodes(self) -> int:
        """The nodes that train."""
        return self.nodes - self.generate_nodes - self.environment_nodes

    @property
    def world(self) -> int:
        """The GPUs that train."""
        return self.train_nodes * self.gpus

    @property
    def total(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus


def gpus_of(gres: str) -> int:
    """The GPUs per node that Slurm's words for generic resources ask for.

    Raises:
        UserError: something else is asked for.
    """
    found = GRES.fullmatch(gres)
    if gres and not found:
        raise UserError(f"gres={gres}: write gpu:N or gpu:KIND:N, GPUs per node")
    return int(found[1] or 1) if found else 0


SMALLEST = Machine()


class Told(Action):
    """The words behind --machine as a Machine."""

    def __call__(self, parser: ArgumentParser, space: Namespace, words: Any, option: Any = None):
        """Put the Machine in its place."""
        setattr(space, self.dest, Machine.parse(words))


def arguments(parser: ArgumentParser) -> None:
    """Give a script that does heavy work `--machine` and `--dry-run`."""
    parser.add_argument(
        "--machine",
        action=Told,
        nargs="+",
        default=SMALLEST,
        metavar="KEY=N",
        help="what the job has: nodes=N gres=gpu:N (per node) threads=N (CPUs per process),"
        " for RL generate_nodes=N environment_nodes=N",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the command of the heavy work; do nothing"
    )
