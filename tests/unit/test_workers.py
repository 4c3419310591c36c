"""The life of a process that tokenizes."""

import errno
import os
import signal
import time
from multiprocessing import get_context

import numpy as np
import pytest

from nemoflow import workers
from nemoflow.documents import Encoded
from nemoflow.errors import UserError
from nemoflow.ledger import Ledger
from nemoflow.turns import Turns
from nemoflow.workers import End, Shard, Told, Wrong, die_with_parent, make, work, write_at

CONTEXT = get_context("fork")
DTYPE = np.dtype("<u2")


class Counting:
    """Documents of block n: n + 1 ids of value n, those of every third block in valid."""

    encoder = property(lambda self: self)
    rested = 0

    def rest(self):
        self.rested += 1

    def encode(self, number):
        ids, none = np.full(number + 1, number, np.int32), np.zeros(0, np.int32)
        order = [ids, none, none] if number % 3 else [none, ids, none]
        return Encoded(order, [np.array([len(each)], "<i4") for each in order], 0, Ledger())


class Pipe:
    """What was said into a pipe."""

    def __init__(self):
        self.said, self.closed = [], False

    def send(self, told):
        self.said.append(told)

    def close(self):
        self.closed = True


def shard_of(folder, units, number=0):
    files = [folder / f"{split}_{number}" for split in ("train", "valid", "test")]
    for path in files:
        path.write_bytes(b"")
    return Shard(number, units, files, Turns(CONTEXT, 3))


def units(count=7):
    return iter([lambda number=number: number for number in range(count)])


def expected(count=7):
    train = [number for number in range(count) if number % 3 for _ in range(number + 1)]
    valid = [number for number in range(count) if number % 3 == 0 for _ in range(number + 1)]
    return [np.array(each, DTYPE).tobytes() for each in (train, valid, [])]


def test_one_process_makes_all_blocks_in_order(tmp_path):
    shard, out, documents = shard_of(tmp_path, units), Pipe(), Counting()
    assert make(shard, documents, DTYPE, out) == 7 == documents.rested
    assert [path.read_bytes() for path in shard.files] == expected()
    assert [told.number for told in out.said] == list(range(7))
    assert out.said[1].sizes == [4, 0, 0] and out.said[1].lengths[0].tolist() == [2]
    assert make(shard_of(tmp_path, lambda: units(0)), documents, DTYPE, Pipe()) == 0


@pytest.mark.parametrize("most", [0, 10, 1 << 20])
def test_blocks_that_are_early_wait_for_their_turn(tmp_path, monkeypatch, most):
    """Processes of odd speed, whatever they may hold, write the same files."""
    monkeypatch.setattr(workers, "MOST_WAITING", most)

    class Slow(Counting):
        def encode(self, number):
            time.sleep(0.01 * (number % 4))
            return super().encode(number)

    shard, pipes = shard_of(tmp_path, lambda: units(15)), []
    for _ in range(3):
        ours, theirs = CONTEXT.Pipe(duplex=False)
        CONTEXT.Process(target=work, args=([shard], Slow(), DTYPE, theirs), daemon=True).start()
        theirs.close()
        pipes.append(ours)
    said = [told for pipe in pipes for told in heard(pipe)]
    assert [path.read_bytes() for path in shard.files] == expected(15)
    assert sorted(told.number for told in said if isinstance(told, Told)) == list(range(15))
    assert [told for told in said if isinstance(told, End)] == [End(0, 15)] * 3


def heard(pipe):
    while True:
        try:
            yield pipe.recv()
        except EOFError:
            return


def failing(error):
    def read():
        raise error
        yield

    return read


def test_what_the_user_can_mend_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "die_with_parent", lambda: None)
    full = OSError(errno.ENOSPC, "full", "a/b.bin")
    for error, text in (
        (UserError("mend it"), "mend it"),
        (full, "no space left on the device: a/b.bin; mend that, and start again"),
        (OSError(errno.ENOSPC, "full"), f"no space left on the device: {tmp_path}; mend that"),
    ):
        out = Pipe()
        work([shard_of(tmp_path, failing(error))], Counting(), DTYPE, out)
        (told,) = out.said
        assert isinstance(told, Wrong) and text in told.text and out.closed


def test_a_defect_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "die_with_parent", lambda: None)
    for error in (KeyError("x"), OSError(errno.EBADF, "bad")):
        out = Pipe()
        with pytest.raises(type(error)):
            work([shard_of(tmp_path, failing(error))], Counting(), DTYPE, out)
        assert out.said == [] and out.closed


def test_all_ids_are_written_however_few_at_a_time(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, at: real(file, content[:3], at))
    (tmp_path / "a").write_bytes(b"")
    with open(tmp_path / "a", "r+b", buffering=0) as file:
        write_at(file.fileno(), np.arange(10, dtype=DTYPE), 4)
        write_at(file.fileno(), np.arange(20, dtype=DTYPE)[::10], 0)
        write_at(file.fileno(), np.zeros(0, DTYPE), 0)
    assert np.fromfile(tmp_path / "a", DTYPE).tolist() == [0, 10, *range(10)]


def child(out):
    die_with_parent()
    out.send(os.getpid())
    time.sleep(60)


def parent(out):
    CONTEXT.Process(target=child, args=(out,)).start()
    time.sleep(60)


def test_a_process_dies_with_its_parent():
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=parent, args=(theirs,))
    process.start()
    theirs.close()
    started = ours.recv()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert ours.poll(10)  # the last one that held the pipe is gone
    with pytest.raises(EOFError):
        ours.recv()
    assert started != process.pid
