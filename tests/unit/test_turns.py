"""Claims and turns of the blocks of a shard."""

import errno
import threading
from multiprocessing import get_context

import numpy as np
import pytest

from nemoflow.errors import UserError
from nemoflow.turns import Turns

CONTEXT = get_context("fork")


def test_a_block_is_claimed_once():
    turns, claimed = Turns(CONTEXT, 1), []

    def claim():
        claimed.extend(turns.claim() for _ in range(200))

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(800))


def test_offsets_follow_from_the_sizes_of_all_blocks_before():
    turns = Turns(CONTEXT, 3)
    assert turns.place(1, [9, 9, 9], wait=False) is None
    assert turns.place(0, [4, 0, 2], wait=False) == [0, 0, 0]
    assert turns.place(2, [9, 9, 9], wait=False) is None
    assert turns.place(1, [1, 1, 0], wait=True) == [4, 0, 2]
    assert turns.place(2, [1 << 33, 0, 0], wait=True) == [5, 1, 2]
    assert turns.place(3, [0, 0, 0], wait=True) == [(1 << 33) + 5, 1, 2]


def life(turns, out, sizes):
    mine = []
    while (number := turns.claim()) < len(sizes):
        mine.append((number, turns.place(number, sizes[number], wait=True)))
    out.send(mine)


@pytest.mark.parametrize("processes", [1, 4])
def test_processes_share_them(processes):
    sizes = np.random.default_rng(1).integers(0, 50, (300, 3)).tolist()
    turns, pipes = Turns(CONTEXT, 3), []
    for _ in range(processes):
        ours, theirs = CONTEXT.Pipe(duplex=False)
        CONTEXT.Process(target=life, args=(turns, theirs, sizes), daemon=True).start()
        theirs.close()
        pipes.append(ours)
    placed = dict(pair for pipe in pipes for pair in pipe.recv())
    before = np.cumsum(sizes, axis=0) - sizes
    assert [placed[number] for number in range(300)] == before.tolist()


def test_a_machine_without_room_to_share_is_named(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CONTEXT, "Value", full)
    with pytest.raises(UserError, match="/dev/shm: No space left on device"):
        Turns(CONTEXT, 1)
