"""Scores of two sides: a difference is called what it is, and noise is called noise."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.score_pairs import Score, is_lower_better, paired, table


def score(value, stderr=0.1, metric="acc,none"):
    return {"metric": metric, "value": value, "stderr": stderr, "n": 10}


def verdict(a, b, lower=False):
    return Score("sft", "sums", a, b, lower).verdict


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (score(0.5), score(0.5), "same"),
        (score(0.5), score(0.7), "within noise"),  # 0.2 < 2 √0.02
        (score(0.5), score(0.79), "better"),
        (score(0.5), score(0.2), "worse"),
        (score(0.0, 0.0), score(1.0, 0.0), "better"),  # no item right, then all
        (score(0.0, None), score(0.0, 0.1), "same"),
        (score(0.0, None), score(0.9, 0.1), "no standard error"),
        (score(0.5), None, "only A"),
        (None, score(0.5), "only B"),
        (score(0.5), score(0.5, metric="acc_norm,none"), "other metric: acc,none → acc_norm,none"),
    ],
)
def test_verdicts(a, b, said):
    assert verdict(a, b) == said


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_verdict_turns_with_the_sides(x, y, error_x, error_y):
    a, b = score(x, error_x), score(y, error_y)
    turned = {"better": "worse", "worse": "better"}
    there, back = verdict(a, b), verdict(b, a)
    assert back == turned.get(there, there) == verdict(a, b, lower=True)
    noise = abs(x - y) < 2 * math.hypot(error_x, error_y)
    assert (there in turned) == (x != y and not noise)


def test_lower_is_better_where_the_task_or_the_harness_says_so():
    own = {"task": {"harness": {"metric_list": [{"metric": "edits", "higher_is_better": False}]}}}
    assert is_lower_better("edits,none", own) and not is_lower_better("edits,none", {})
    assert is_lower_better("word_perplexity,none", {"task": {"harness": "wikitext"}})
    assert not is_lower_better("acc,none", own)


def test_stages_come_in_the_order_of_the_pipeline_and_none_is_left_out():
    before = {"rl": {"sums": score(0.5)}, "pretrain": {"sums": score(0.1)}}
    after = {"sft": {"sums": score(0.3)}, "rl": {"sums": score(0.9), "facts": score(0.2)}}
    found = paired(before, after, {})
    assert [(s.stage, s.task, s.verdict) for s in found] == [
        ("pretrain", "sums", "only A"), ("sft", "sums", "only B"),
        ("rl", "sums", "better"), ("rl", "facts", "only B"),
    ]  # fmt: skip
    lines = list(table(found))
    assert lines[1].split() == ["pretrain", "sums", "0.100", "–", "–", "–", "only", "A"]
    assert lines[3].split() == ["rl", "sums", "0.500", "0.900", "+0.400", "0.141", "better"]
    assert (
        len({line.index(word) for line, word in zip(lines[1:3], ("only A", "only B"), strict=True)})
        == 1
    )
