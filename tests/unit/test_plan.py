"""Every byte of every file in exactly one shard, and the shards as even as the files allow."""

import random
import time
from itertools import pairwise

import pytest

from nemoflow.files import write_json
from nemoflow.plan import make_plan
from nemoflow.source_file import SourceFile

ENDS = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.zst")
CASES = 3000
EDGES = [
    ([(98, ".json"), (1, ".json"), (1, ".json")], 1, 4),
    ([(97, ".json"), (1, ".json"), (1, ".json"), (1, ".json")], 5, 1),
    ([(0, ".json"), (0, ".jsonl.gz")], 3, 2),
    ([(1, ".jsonl.zst")], 7, 7),
    ([(1, ".json")], 7, 7),
    ([], 2, 3),
]


def source_files(listed):
    return [
        SourceFile(f"{number:02d}{end}", size, f"sha256:{number:064d}")
        for number, (size, end) in enumerate(listed)
    ]


def shards_of(plan):
    return [shard for part in plan["parts"] for shard in part]


def loads(plan):
    return [sum(piece["end"] - piece["start"] for piece in shard) for shard in shards_of(plan)]


@pytest.mark.parametrize("case", EDGES, ids=str)
def test_a_plan_holds_every_byte_once_in_even_shards(case):
    check(*case)


def test_so_does_every_plan():
    draw = random.Random(0)
    for _ in range(CASES):
        largest = draw.choice((1, 3, 2000, 10**15))
        listed = [(draw.randint(0, largest), draw.choice(ENDS)) for _ in range(draw.randint(0, 12))]
        case = (listed, draw.randint(1, 9), draw.randint(1, 9))
        try:
            check(*case)
        except AssertionError as error:
            raise AssertionError(f"check{case}") from error


def check(listed, parts, shards_per_part):
    listed = source_files(listed)
    plan = make_plan(listed, parts, shards_per_part)
    assert [len(part) for part in plan["parts"]] == [shards_per_part] * parts
    assert plan["files"] == [vars(file) for file in listed]
    pieces = [piece for shard in shards_of(plan) for piece in shard]
    digests = {file.path: file.digest for file in listed}
    assert all(piece["digest"] == digests[piece["path"]] for piece in pieces)
    spans = {file.path: [] for file in listed}
    for piece in pieces:
        spans[piece["path"]].append((piece["start"], piece["end"]))
    for file in listed:
        covered = spans[file.path]
        assert [start for start, _ in covered] == [0, *(end for _, end in covered[:-1])][
            : len(covered)
        ]
        assert sum(end - start for start, end in covered) == file.bytes
        assert all(start < end for start, end in covered)
        if file.compressed:
            assert len(covered) == bool(file.bytes)
    even(listed, plan)
    random.Random(0).shuffle(shuffled := list(listed))
    assert make_plan(shuffled, parts, shards_per_part) == plan


def even(listed, plan):
    """No shard is off the mean by more than the largest file that cannot be cut."""
    total = sum(file.bytes for file in listed)
    largest = max((file.bytes for file in listed if file.compressed), default=0)
    count = len(shards_of(plan))
    for load in loads(plan):
        assert abs(load * count - total) < (largest + 1) * count


@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_read_once(seed):
    """A row, or a row group, belongs to the range that holds its first byte."""
    draw = random.Random(seed)
    for _ in range(200):
        listed = source_files(
            [(draw.randint(1, 400), draw.choice(ENDS)) for _ in range(draw.randint(1, 6))]
        )
        plan = make_plan(listed, draw.randint(1, 4), draw.randint(1, 9))
        pieces = [piece for shard in shards_of(plan) for piece in shard]
        for file in listed:
            begins = {0, *(draw.randrange(file.bytes) for _ in range(20))}
            for begin in begins:
                holding = [
                    piece
                    for piece in pieces
                    if piece["path"] == file.path and piece["start"] <= begin < piece["end"]
                ]
                assert len(holding) == 1


def test_shards_follow_the_order_of_the_files():
    """Neighbours in the listing are neighbours in the shards: tiny files are put together."""
    plan = make_plan(source_files([(10, ".jsonl")] * 90), 3, 3)
    assert [len(shard) for shard in shards_of(plan)] == [10] * 9
    paths = [piece["path"] for shard in shards_of(plan) for piece in shard]
    assert all(before < after for before, after in pairwise(paths))


def test_one_huge_parquet_file_is_cut_like_json_lines():
    for end in (".jsonl", ".parquet"):
        assert loads(make_plan(source_files([(1000, end)]), 2, 2)) == [250] * 4


def test_equal_compressed_files_are_spread():
    plan = make_plan(source_files([(50, ".jsonl.gz")] * 6), 3, 2)
    assert [len(shard) for shard in shards_of(plan)] == [1] * 6


def test_a_hundred_terabytes_in_ten_thousand_files_are_planned_at_once(tmp_path):
    draw = random.Random(0)
    listed = [
        SourceFile(f"{number:05d}{draw.choice(ENDS)}", draw.randrange(20 * 10**9), f"etag:{number}")
        for number in range(10_000)
    ]
    began = time.process_time()
    plan = make_plan(listed, 3000, 4)
    write_json(tmp_path / "plan.json", plan)
    assert time.process_time() - began < 5
    assert sum(loads(plan)) == sum(file.bytes for file in listed)


def test_no_parts_is_a_defect():
    with pytest.raises(ValueError, match="at least one"):
        make_plan([], 0, 1)
