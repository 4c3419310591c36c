"""What a profile gives a job, from the words of the rule's command line."""

from argparse import ArgumentParser

import pytest

from nemoflow import machine
from nemoflow.errors import UserError
from nemoflow.machine import Machine


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ([], Machine()),
        (["nodes=1", "gres=", "threads=4"], Machine(threads=4)),
        (["nodes=4", "gres=gpu:8", "threads=12"], Machine(4, 8, 12)),
        (["gres=gpu:b200:4"], Machine(gpus=4)),
        (["gres=gpu"], Machine(gpus=1)),
        (
            ["nodes=109", "gres=gpu:8", "generate_nodes=72", "environment_nodes=5"],
            Machine(109, 8, 1, 72, 5),
        ),
    ],
)
def test_words_make_a_machine(words, made):
    assert Machine.parse(words) == made


def test_the_world_is_what_trains():
    made = Machine(109, 8, 12, 72, 5)
    assert (made.train_nodes, made.world, made.total) == (32, 256, 872)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("node=4", "--machine node=4: write gres=gpu:N"),
        ("nodes=four", "--machine nodes=four: write"),
        ("nodes=0", "nodes and threads are at least 1"),
        ("gres=shard:8", "gres=shard:8: write gpu:N"),
        ("generate_nodes=1", "none is left to train"),
    ],
)
def test_what_is_no_machine_is_refused(word, said):
    with pytest.raises(UserError, match=said):
        Machine.parse([word])


def test_a_script_takes_them_behind_one_option():
    parser = ArgumentParser()
    machine.arguments(parser)
    told = parser.parse_args(["--machine", "nodes=2", "gres=gpu:8", "--dry-run"])
    assert told.machine == Machine(2, 8) and told.dry_run
    assert parser.parse_args([]).machine == Machine()
