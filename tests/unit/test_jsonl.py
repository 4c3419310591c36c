"""JSON lines; spans and faults of whole files: test_corpus."""

import gzip
import io

import pytest
import zstandard

from nemoflow.errors import UserError
from nemoflow.jsonl import decompressed, line_number, lines, parse

LONG = b"".join(b'{"n": %d}\n' % n for n in range(200_000))
ZSTD = zstandard.ZstdCompressor(write_checksum=True)
PACKERS = {".gz": gzip.compress, ".zst": ZSTD.compress, "": bytes}


@pytest.mark.parametrize("ending", PACKERS)
def test_offsets_are_those_of_the_decompressed_file(ending):
    content = b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"a":2}'
    stored, name = io.BytesIO(PACKERS[ending](content)), f"a.jsonl{ending}"
    found = list(lines(stored, name, (0, 5) if ending else None))
    assert [offset for offset, _ in found] == [0, 16]
    assert [parse(line) for _, line in found] == [({"a": 1}, None), ({"a": 2}, None)]
    numbers = []
    for offset, _ in found:
        stored.seek(0)
        numbers.append(line_number(stored, name, offset))
    assert numbers == [1, 4]


def test_a_line_belongs_to_the_span_in_which_it_starts():
    stored = io.BytesIO(b"1111\n22\n3\n")
    found = {span: [line for _, line in lines(stored, "a.jsonl", span)] for span in
             [(0, 1), (1, 5), (5, 6), (6, 8), (4, 9), (8, 10)]}  # fmt: skip
    assert found == {
        (0, 1): [b"1111\n"],
        (1, 5): [],
        (5, 6): [b"22\n"],
        (6, 8): [],
        (4, 9): [b"22\n", b"3\n"],
        (8, 10): [b"3\n"],
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"{", "not_json"), (b'{"a":"\xff"}', "not_json"), (b'{"a":NaN}', "not_json"),
     (b"[1]", "not_an_object"), (b"null", "not_an_object")],
)  # fmt: skip
def test_faults_have_reasons(line, reason):
    assert parse(line)[1] == reason


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_several_members_are_one_stream_read_in_any_pieces(ending):
    pack = PACKERS[ending]
    packed = pack(LONG[:1000]) + pack(b"") + pack(LONG[1000:])
    assert decompressed(io.BytesIO(packed), f"a{ending}").read() == LONG
    stream, found = decompressed(io.BytesIO(packed), f"a{ending}"), bytearray(777_777)
    pieces = []
    while size := stream.readinto(found):
        pieces.append(bytes(found[:size]))
    assert b"".join(pieces) == LONG


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_what_is_damaged_or_cut_is_named_and_the_rest_is_not_lost_in_silence(ending):
    packed = PACKERS[ending](LONG)
    kind = "gzip" if ending == ".gz" else "zstd"
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    for content in (packed[:-3], packed[:100], packed + packed[:500], b"plain text", flipped):
        stream = decompressed(io.BytesIO(bytes(content)), f"x/a{ending}")
        with pytest.raises(UserError, match=f"x/a{ending} is not a whole {kind} file: .*again"):
            while stream.read(1 << 20):
                pass
