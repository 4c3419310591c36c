"""The score among what lm-eval reports, its standard error, and what is kept of a sample."""

import math

import pytest

from nemoflow.engines import outcome
from nemoflow.errors import UserError

FOUND = {"acc,none": 0.5, "acc_stderr,none": 0.1, "bleu,none": 31.5, "bleu_stderr,none": "N/A"}


def test_the_standard_error_is_the_one_of_the_metric():
    told = outcome.score(FOUND, "acc,none", 7)
    assert told == {"metric": "acc,none", "value": 0.5, "stderr": 0.1, "n": 7}
    assert outcome.score(FOUND, "bleu,none", 7)["stderr"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_no_score(value):
    with pytest.raises(UserError, match=f"acc,none is {value}: no score"):
        outcome.score({"acc,none": value}, "acc,none", 7)


def test_the_samples_are_those_of_the_metrics_filter():
    given = {"one": [{"filter": "strict", "doc": 1}, {"filter": "boxed", "doc": 1}]}
    assert outcome.samples(given, "one", "exact_match,boxed") == [given["one"][1]]
    assert outcome.samples(given, "all", "exact_match,boxed")[0]["task"] == "one"


def answers(*given):
    return [{"resps": [[one]]} for one in given]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "no items"),
        (("", " \n"), "each of 2 generations is empty"),
        (((-1.0, True), (math.nan, False)), "1 of 2 likelihoods are nan"),
        ((math.nan,), "1 of 1 likelihoods are nan"),
    ],
)
def test_a_model_that_answers_nothing_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        outcome.refuse_silence(answers(*given))


@pytest.mark.parametrize("given", [("", "4"), ((-math.inf, False), (-1.0, True)), (-3.0,)])
def test_a_model_that_answers_something_is_scored(given):
    outcome.refuse_silence(answers(*given))
