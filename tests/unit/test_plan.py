"""Every byte of every file in exactly one shard."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nemoflow.corpus import SourceFile
from nemoflow.plan import make_plan

files = st.lists(st.tuples(st.integers(0, 2000), st.booleans()), max_size=12)


def source_files(sizes):
    return [
        SourceFile(f"{i:02d}.jsonl{'.gz' if packed else ''}", size, "0" * 32)
        for i, (size, packed) in enumerate(sizes)
    ]


@given(files, st.integers(1, 7), st.integers(1, 7))
@example([(98, False), (1, False), (1, False)], 1, 4)
@example([(97, False), (1, False), (1, False), (1, False)], 5, 1)
@example([(0, False), (0, True)], 3, 2)
@example([(1, True)], 7, 7)
def test_every_byte_lies_in_exactly_one_shard(sizes, parts, shards_per_part):
    listed = source_files(sizes)
    plan = make_plan(listed, parts, shards_per_part)
    assert len(plan["parts"]) == parts
    assert all(len(part) == shards_per_part for part in plan["parts"])
    pieces = [piece for part in plan["parts"] for shard in part for piece in shard]
    for file in listed:
        spans = sorted((p["start"], p["end"]) for p in pieces if p["path"] == file.path)
        assert [start for start, _ in spans] == ([0] + [end for _, end in spans[:-1]])[: len(spans)]
        assert sum(end - start for start, end in spans) == file.bytes
        assert all(start < end for start, end in spans)
        if file.compressed:
            assert len(spans) == bool(file.bytes)


@given(files, st.integers(1, 5), st.integers(1, 5))
def test_a_plan_does_not_depend_on_the_order_of_the_listing(sizes, parts, shards):
    listed = source_files(sizes)
    assert make_plan(listed, parts, shards) == make_plan(listed[::-1], parts, shards)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=9), st.integers(1, 40))
def test_plain_files_give_equal_shards(sizes, shards):
    plan = make_plan(source_files((size, False) for size in sizes), 1, shards)
    loads = [sum(p["end"] - p["start"] for p in shard) for shard in plan["parts"][0]]
    assert max(loads) - min(loads) <= 1


def test_equal_compressed_files_are_spread():
    plan = make_plan(source_files([(50, True)] * 6), 3, 2)
    assert [len(shard) for part in plan["parts"] for shard in part] == [1] * 6


def test_no_parts_is_a_defect():
    with pytest.raises(ValueError, match="at least one"):
        make_plan([], 0, 1)
