"""Spools of rendered sequences."""

import numpy as np
import pytest

from nemoflow.errors import UserError
from nemoflow.spool import SEQUENCE, Spool, SpoolWriter, conversation


def arrays(*sequences):
    return [(np.array(ids, np.int32), np.array(mask, np.uint8)) for ids, mask in sequences]


def write(folder, rows):
    with SpoolWriter(folder, 7) as writer:
        for row in rows:
            writer.add(conversation(arrays(*row)))
    return Spool(folder)


def test_reads_back_what_was_written(tmp_path):
    spool = write(tmp_path, [[([1, 70000, 3], [0, 1, 1]), ([4], [1])], [([5, 6], [0, 1])]])
    start = "01000000701101000300000004000000"
    assert (tmp_path / "tokens.bin").read_bytes().hex() == start + "0500000006000000"
    assert (tmp_path / "masks.bin").read_bytes() == b"\0\1\1\1\0\1"
    assert spool.eos_id == 7 and spool.rows == 2
    found = [[part.tolist() for part in spool.sequence(index)] for index in range(3)]
    assert found == [[[1, 70000, 3], [0, 1, 1]], [[4], [1]], [[5, 6], [0, 1]]]


def test_what_is_chosen_by_follows_from_the_records(tmp_path):
    """Of each sequence: its place, its tokens, the first one trained and how many, and its row."""
    rows = [[([1, 2, 3], [0, 0, 1]), ([4, 5, 6, 7], [1, 1, 0, 1])], [([8, 9], [1, 0])]]
    told = write(tmp_path, rows).sequences
    assert SEQUENCE.itemsize == 40
    columns = {
        "start": [0, 3, 7],
        "length": [3, 4, 2],
        "first": [2, 1, 2],  # the very first token is predicted from nothing
        "trained": [1, 2, 0],
        "row": [0, 0, 1],
    }
    assert {name: told[name].tolist() for name in columns} == columns


def test_rows_have_hashes_of_their_prompt_and_of_all_they_hold(tmp_path):
    first, mask = [1, 2, 3], [0, 0, 1]
    rows = [
        [(first, mask)],
        [(first, mask)],
        [([1, 2, 4], mask)],  # another answer
        [([1, 5, 3], mask)],  # another question
        [(first, mask), (first, mask)],
        [(first, [0, 1, 1])],  # the same tokens, but more of them answer
    ]
    told = write(tmp_path, rows).sequences
    told = told[np.unique(told["row"], return_index=True)[1]]
    prompts, contents = told["prompt"].tolist(), told["content"].tolist()
    assert prompts[0] == prompts[1] == prompts[2] == prompts[4]
    assert len({prompts[0], prompts[3], prompts[5]}) == 3
    assert contents[0] == contents[1] and len({*contents[1:]}) == 5


def test_a_spool_is_written_from_the_beginning(tmp_path):
    write(tmp_path, [[([1, 2], [0, 1])]])
    (tmp_path / "stale").touch()
    spool = write(tmp_path, [])
    assert len(spool.sequences) == spool.rows == 0 and not (tmp_path / "stale").exists()


def test_half_a_spool_is_none(tmp_path):
    write(tmp_path, [[([1, 2], [0, 1])]])
    with pytest.raises(RuntimeError), SpoolWriter(tmp_path, 7) as writer:
        writer.add(conversation(arrays(([1], [1]))))
        raise RuntimeError
    with pytest.raises(UserError, match="holds no rendered conversations"):
        Spool(tmp_path)
    write(tmp_path, [[([1, 2], [0, 1])]])
    (tmp_path / "masks.bin").write_bytes(b"1")
    with pytest.raises(UserError, match="its sizes disagree"):
        Spool(tmp_path)
