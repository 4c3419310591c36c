"""Rows in = rows kept + rows dropped."""

import pytest

from nemoflow.errors import UserError
from nemoflow.rows import RowCount


def test_counts_add_up_or_are_refused():
    counts = RowCount(rows_in=3, kept=1)
    counts.drop("not_json", "a, line 1")
    with pytest.raises(AssertionError, match="3 rows in"):
        counts.as_dict()
    counts.drop("empty_text")
    assert counts.as_dict() == {"in": 3, "kept": 1, "dropped": {"empty_text": 1, "not_json": 1}}


def test_filters_are_no_faults():
    counts = RowCount(rows_in=100, kept=9)
    for number in range(90):
        counts.drop("used_in" if number % 2 else "filter:meta.score")
    counts.drop("control_token", "a, byte 0: <s>")
    counts.check(0.01)
    with pytest.raises(
        UserError, match=r"1 of 100 rows .* 1 control_token \(first: a, byte 0: <s>\)"
    ):
        counts.check(0.0)
