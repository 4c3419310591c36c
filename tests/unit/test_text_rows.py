"""Rows to texts, and why some have none."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.text_rows import Rows, column_texts, fault

GOOD = b'{"text": "abc"}'
FAULTS = {
    b"{": "not_json",
    b"nothing": "not_json",
    b'{"text": "a\tb"}': "not_json",
    b'{"text": "a"} {"text": "b"}': "not_json",
    b"[" * 5000: "not_json",
    b"[1]": "not_an_object",
    b'"text"': "not_an_object",
    b"null": "not_an_object",
    b"{}": "missing_text",
    b'{"Text": "a"}': "missing_text",
    b'{"text": 3}': "text_not_string",
    b'{"text": ["a"]}': "text_not_string",
    b'{"text": {"text": "a"}}': "text_not_string",
    b'{"text": null}': "empty_text",
    b'{"text": ""}': "empty_text",
    b'{"text": " \\n\\t\\u3000"}': "empty_text",
    b'{"text": "                    "}': "empty_text",
    b'{"text": "\xff"}': "not_utf8",
    b'{"text": "\\ud800"}': "lone_surrogate",
    b'{"text": "a", "other": "\\udc00 "}': "lone_surrogate",
}


def read(lines, base=0, **told):
    return Rows("text", **told).lines("a.jsonl", memoryview(b"".join(lines)), base)


@pytest.mark.parametrize("line", FAULTS, ids=lambda line: repr(line[:30]))
def test_a_row_without_text_has_a_reason_and_a_place(line):
    for before, after in ((b"", b""), (GOOD + b"\n", b""), (b"", b"\r\n" + GOOD), (b"\n", b"\n")):
        block = read([before, line, after], 1000)
        good = GOOD in before + after
        assert block.texts == [b"abc"] * good
        told = block.ledger.totals(block.ledger.rows)
        assert told == {"in": good + 1, "kept": good, "dropped": {FAULTS[line]: 1}}
        assert block.ledger.first == {FAULTS[line]: [f"a.jsonl, byte {1000 + len(before)}"]}
        size = len(before + line + after) - (before == b"\n")
        assert block.ledger.totals(block.ledger.bytes)["in"] == size


def test_two_rows_in_a_line_are_none_though_as_many_rows_as_lines_are_there():
    lines = [GOOD + GOOD + b"\n", GOOD + b"\n"]
    block = read([*lines, b"{}\n"])
    assert block.ledger.totals(block.ledger.rows)["dropped"] == {"missing_text": 1, "not_json": 1}
    block = read([b'{"text": "a}\n', b'{b"}\n', GOOD + GOOD + b"\n"])
    assert block.texts == [] and block.ledger.totals(block.ledger.rows)["in"] == 3


def test_what_is_not_the_text_may_be_no_utf8():
    line = b'{"text": "a", "\xed\xa0\x80": "\xff"}\n'
    assert read([line]).texts == read([line, b" \n"]).texts == [b"a"]


def test_blank_lines_are_no_rows():
    lines = [b"\n", b"  \r\n", GOOD, b"\n", b"\t\n", GOOD, b"\r\n", b"\n"]
    block = read(lines)
    assert (block.texts, block.offsets.tolist()) == ([b"abc"] * 2, [5, 23])
    assert block.sizes.tolist() == [len(GOOD) + 1, len(GOOD) + 2]
    assert block.ledger.totals(block.ledger.bytes) == {"in": 33, "kept": 33, "dropped": {}}


def test_a_byte_order_mark_begins_a_file_alone():
    mark = b"\xef\xbb\xbf"
    assert read([mark + GOOD, b"\n", GOOD]).offsets.tolist() == [0, len(GOOD) + 4]
    assert read([mark, b"\n", GOOD]).texts == [b"abc"]
    for block in (read([GOOD, b"\n", mark, GOOD]), read([mark, GOOD, b"\n", GOOD], 50)):
        assert block.ledger.totals(block.ledger.rows)["dropped"] == {"not_json": 1}


def test_all_at_once_or_one_by_one():
    """A last line that makes the quick way impossible changes nothing else."""
    values = ["a", "ä\u2028\n\u0085", "b\0", "{}\n{", "", "  x", "\u3000"] + ["c" * 90]
    lines = [json.dumps({"id": 1, "text": value}).encode() + b"\n" for value in values]
    for shortest in (0, 2):
        quick = read(lines, 7, min_doc_chars=shortest)
        slow = read([*lines, b"\r\n"], 7, min_doc_chars=shortest)
        most = read(lines, 7, min_doc_chars=shortest, most=99)
        for other in (slow, most):
            assert (other.texts, other.ledger.receipt()) == (quick.texts, quick.ledger.receipt())
            assert other.offsets.tolist() == quick.offsets.tolist()
            assert other.sizes.tolist() == quick.sizes.tolist()
    assert quick.ledger.noted == {"nul_character": 1}


@given(st.text(max_size=30), st.integers(0, 12))
def test_short_and_blank_texts_are_dropped_by_characters(text, shortest):
    line = json.dumps({"text": text}, ensure_ascii=False).encode()
    expected = "too_short" if len(text) < shortest else "kept"
    if not text or text.isspace():
        expected = "empty_text"
    for lines in ([line], [line, b"\n\r\n"]):
        assert [reason for _, reason in read(lines, min_doc_chars=shortest).ledger.rows] == [
            expected
        ]
    values = Rows("text", shortest).values("a.parquet", pa.array([text]), 0)
    assert [reason for _, reason in values.ledger.rows] == [expected]


def test_another_field_may_hold_the_text():
    lines = memoryview(b'{"text": 3, "con tent": "abc"}\n')
    assert Rows("con tent").lines("a.jsonl", lines, 0).texts == [b"abc"]


def test_no_row_is_looked_at_after_the_last_one_asked():
    rows = Rows("text", most=3)
    block = rows.lines("a.jsonl", memoryview((GOOD + b"\n{}\n") * 2), 0)
    assert (len(block.texts), rows.left) == (2, 1)
    block = rows.lines("a.jsonl", memoryview((GOOD + b"\n") * 9), 100)
    assert (block.offsets.tolist(), rows.left) == ([100], 0)
    assert block.ledger.totals(block.ledger.rows)["in"] == 1


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()]
)
@pytest.mark.parametrize("dictionary", [False, True])
def test_columns_of_every_kind_of_text(kind, dictionary):
    if dictionary and kind == pa.string_view():
        pytest.skip("Arrow has no dictionaries of views")
    values = pa.array(["a", None, "", "ä" * 9, "a"], kind)
    if dictionary:
        values = values.dictionary_encode()
    block = Rows("text").values("a.parquet", values[1:], 11)
    assert block.texts == ["ä".encode() * 9, b"a"] and block.offsets.tolist() == [13, 14]
    assert block.ledger.rows == {("a.parquet", "empty_text"): 2, ("a.parquet", "kept"): 2}
    assert block.ledger.first == {"empty_text": ["a.parquet, row 11", "a.parquet, row 12"]}
    assert block.sizes.tolist() == [18, 1]


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_columns_may_hold_what_is_not_text(kind):
    values = pa.array([b"a", b"\xff", None, b"\xed\xa0\x80", b"c"], pa.binary()).view(kind)
    assert column_texts(values) == ([b"a", b"\xff", None, b"\xed\xa0\x80", b"c"], {1, 3})
    block = Rows("text").values("a.parquet", values, 0)
    assert block.texts == [b"a", b"c"]
    assert block.ledger.first["not_utf8"] == ["a.parquet, row 1", "a.parquet, row 3"]


def test_rows_can_be_dropped_later():
    block = read([GOOD, b"\n", b'{"text": "x"}', b"\n", GOOD]).drop({1: "no_tokens"})
    assert block.texts == [b"abc"] * 2 and block.offsets.tolist() == [0, 30]
    assert block.ledger.rows["a.jsonl", "no_tokens"] == 1
    assert block.ledger.bytes["a.jsonl", "no_tokens"] == 14
    assert block.ledger.first == {"no_tokens": ["a.jsonl, byte 16"]}


def test_a_row_that_has_a_text_twice_is_what_json_says():
    assert read([b'{"text": "a", "text": "b"}']).texts == [b"b"]
    assert fault(b'{"text": "a", "text": 3}', "text") == "text_not_string"
