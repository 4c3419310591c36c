"""What the parent makes of what its processes say."""

import hashlib
import itertools
import os
import random
import threading
import time
from multiprocessing import get_context

import numpy as np
import pytest

from nemoflow import collecting
from nemoflow.collecting import Collected, Growing, collect
from nemoflow.errors import UserError
from nemoflow.ledger import KEPT, Ledger
from nemoflow.workers import End, Told, Wrong

CONTEXT = get_context("fork")


def told(number, sizes=(2, 0, 0), shard=0):
    ledger = Ledger()
    ledger.count("a", KEPT, 1, 10)
    ledger.count("a", "not_json", 1, 5, f"byte {number}")
    return Told(shard, number, list(sizes), [np.array([number], "<i4")] * 3, 1, ledger)


@pytest.fixture
def growing(tmp_path):
    """A shard's three files that are being written."""
    files = [tmp_path / split for split in ("train", "valid", "test")]
    for path in files:
        path.write_bytes(b"")
    return [Growing(path) for path in files]


def test_digests_follow_the_files_as_they_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "CHUNK", 7)
    monkeypatch.setattr(collecting, "FLUSH", 100)
    flushed, real = [], os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (flushed.append(file), real(file)))
    content = random.Random(1).randbytes(1000)
    growing = Growing(tmp_path / "a")
    (tmp_path / "a").write_bytes(content)  # what is not told yet does not count
    for start in range(0, 900, 30):
        growing.follow(30)
        assert growing.md5.hexdigest() == hashlib.md5(content[: start + 30]).hexdigest()
    assert 5 <= len(flushed) <= 9
    with pytest.raises(UserError, match="shorter than what was written"):
        growing.follow(200)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_blocks_are_taken_in_in_order(growing, order):
    content = [b"aa", b"bb", b"cc", b"dd"]
    growing[0].path.write_bytes(b"".join(content))
    shard = Collected(growing)
    for count, number in enumerate(order, start=1):
        shard.add(told(number))
        known = next((n for n in range(5) if n not in order[:count]), 4)
        assert shard.next == known
        digest = hashlib.md5(b"".join(content[:known])).hexdigest()
        assert growing[0].md5.hexdigest() == digest
    assert not shard.whole
    shard.blocks = 4
    assert shard.whole and shard.truncated == 4
    assert [lengths.tolist() for lengths in shard.lengths[0]] == [[0], [1], [2], [3]]
    assert shard.ledger.first == {"not_json": ["a, byte 0", "a, byte 1", "a, byte 2"]}
    assert shard.ledger.totals(shard.ledger.rows) == {
        "in": 8,
        "kept": 4,
        "dropped": {"not_json": 4},
    }


def pipes_saying(*lives):
    """Pipes out of which things come, and then the end."""
    pipes = []
    for life in lives:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        for thing in life:
            theirs.send(thing) if not isinstance(thing, bytes) else os.write(theirs.fileno(), thing)
        theirs.close()
        pipes.append(ours)
    return pipes


def heard(growing, *lives, shards=1):
    for file in growing:
        file.path.write_bytes(b"x" * 100)
    finished, progress = [], []
    found = {number: Collected(growing if number == 0 else []) for number in range(shards)}
    collect(
        pipes_saying(*lives), found, lambda number, shard: finished.append(number), progress.append
    )
    return finished, sum(progress)


def test_a_shard_is_finished_once_when_all_was_heard(growing):
    one, other = [told(0), told(2), End(0, 3)], [told(1), End(0, 3)]
    assert heard(growing, one, other) == ([0], 45)
    assert heard(growing, [End(0, 0)], [End(0, 0)]) == ([0], 0)


def test_a_process_may_be_at_the_next_shard_already(growing):
    one = [told(0), End(0, 2), End(1, 0)]
    other = [told(1), End(0, 2), End(1, 0)]
    assert heard(growing, one, other, shards=2) == ([0, 1], 30)


def test_a_shard_waits_for_a_process_that_has_yet_to_open_its_files(growing):
    for file in growing:
        file.path.write_bytes(b"x" * 100)
    ours, theirs = CONTEXT.Pipe(duplex=False)
    (other,) = pipes_saying([told(0), End(0, 1)])
    finished, heard_all = [], threading.Event()
    given = {0: Collected(growing)}, lambda *_: finished.append(0), lambda _: heard_all.set()
    thread = threading.Thread(target=collect, args=([ours, other], *given))
    thread.start()
    assert heard_all.wait(60) and not finished
    time.sleep(0.05)
    assert not finished  # it is whole, but its second process is not through it
    theirs.send(End(0, 1))
    thread.join(60)
    assert finished == [0]


def test_what_the_user_can_mend_ends_it(growing):
    with pytest.raises(UserError, match="mend it"):
        heard(growing, [told(0)], [Wrong("mend it")])


@pytest.mark.parametrize("rest", [[], [b"\0\0\1\0abc"], [b"\0"]])
def test_a_process_that_ends_too_early_was_killed(growing, rest):
    """Before it said anything more, or in the middle of what it said."""
    with pytest.raises(UserError, match="a process that tokenizes was killed"):
        heard(growing, [told(0), *rest], [told(1), End(0, 2)])


def test_it_is_noticed_while_the_others_go_on(growing):
    ours, theirs = CONTEXT.Pipe(duplex=False)
    (dead,) = pipes_saying([])
    errors = []

    def hear():
        try:
            collect([ours, dead], {0: Collected(growing)}, print, print)
        except UserError as error:
            errors.append(str(error))

    thread = threading.Thread(target=hear)
    thread.start()
    thread.join(60)
    assert len(errors) == 1 and not theirs.closed


def test_a_process_that_dies_in_the_middle_of_a_word_was_killed():
    ours, theirs = CONTEXT.Pipe(duplex=False)
    os.write(theirs.fileno(), (1000).to_bytes(4, "big") + b"the beginning")
    theirs.close()
    with pytest.raises(UserError, match="a process that tokenizes was killed"):
        collecting.hear(ours)
