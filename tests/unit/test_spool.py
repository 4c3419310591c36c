"""Spools of rendered sequences."""

import numpy as np
import pytest

from nemoflow.errors import UserError
from nemoflow.spool import Spool, SpoolWriter


def write(folder, sequences):
    with SpoolWriter(folder, 7) as writer:
        for ids, mask in sequences:
            writer.add(np.array(ids, np.int32), np.array(mask, np.uint8))


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path, [([1, 70000, 3], [0, 1, 1]), ([4], [1])])
    assert (tmp_path / "tokens.bin").read_bytes().hex() == "01000000701101000300000004000000"
    assert (tmp_path / "masks.bin").read_bytes() == b"\0\1\1\1"
    spool = Spool(tmp_path)
    assert spool.lengths.tolist() == [3, 1] and spool.eos_id == 7
    assert [part.tolist() for part in spool.sequence(0)] == [[1, 70000, 3], [0, 1, 1]]
    assert [part.tolist() for part in spool.sequence(1)] == [[4], [1]]


def test_a_spool_is_written_from_the_beginning(tmp_path):
    write(tmp_path, [([1, 2], [0, 1])])
    (tmp_path / "stale").touch()
    write(tmp_path, [])
    assert len(Spool(tmp_path).lengths) == 0 and not (tmp_path / "stale").exists()


def test_half_a_spool_is_none(tmp_path):
    write(tmp_path, [([1, 2], [0, 1])])
    with pytest.raises(RuntimeError), SpoolWriter(tmp_path, 7) as writer:
        writer.add(np.array([1], np.int32), np.array([1], np.uint8))
        raise RuntimeError
    with pytest.raises(UserError, match="holds no rendered conversations"):
        Spool(tmp_path)
    write(tmp_path, [([1, 2], [0, 1])])
    (tmp_path / "masks.bin").write_bytes(b"1")
    with pytest.raises(UserError, match="its sizes disagree"):
        Spool(tmp_path)
