"""JSON lines; spans and faults of whole files: test_corpus."""

import gzip

import pytest

from nemoflow.errors import UserError
from nemoflow.jsonl import line_number, lines, parse


@pytest.mark.parametrize("compressed", [False, True])
def test_offsets_are_those_of_the_decompressed_file(tmp_path, compressed):
    content = b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"a":2}'
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(content) if compressed else content)
    found = list(lines(path, compressed, (0, 5) if compressed else None))
    assert [offset for offset, _ in found] == [0, 16]
    assert [parse(line) for _, line in found] == [({"a": 1}, None), ({"a": 2}, None)]
    assert [line_number(path, compressed, offset) for offset, _ in found] == [1, 4]


def test_a_line_belongs_to_the_span_in_which_it_starts(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1111\n22\n3\n")
    found = {span: [line for _, line in lines(path, False, span)] for span in
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


def test_a_file_that_is_no_gzip_is_named(tmp_path):
    (tmp_path / "a.gz").write_text("plain")
    with pytest.raises(UserError, match="a.gz is not a whole gzip file"):
        list(lines(tmp_path / "a.gz", True, None))
