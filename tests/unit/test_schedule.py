"""Learning rates as Megatron-LM's OptimizerParamScheduler gives them."""

import math

import pytest

from nemoflow.errors import UserError
from nemoflow.schedule import learning_rate

WSD = {
    "style": "wsd",
    "peak": 4.5e-4,
    "floor": 4.5e-6,
    "warmup_iterations": 10,
    "decay_iterations": 100,
    "decay_style": "minus_sqrt",
    "end_iteration": 500,
}


def test_warmup_starts_at_zero_and_reaches_the_peak():
    assert learning_rate(WSD, 0) == 0
    assert learning_rate(WSD, 5) == pytest.approx(2.25e-4)
    assert learning_rate(WSD, 10) == 4.5e-4


def test_wsd_is_stable_until_the_anneal_starts():
    assert {learning_rate(WSD, step) for step in range(10, 401)} == {4.5e-4}
    assert learning_rate(WSD, 401) < 4.5e-4


@pytest.mark.parametrize(
    ("decay_style", "half"), [("minus_sqrt", 1 - math.sqrt(0.5)), ("linear", 0.5), ("cosine", 0.5)]
)
def test_anneal_by_style(decay_style, half):
    schedule = WSD | {"decay_style": decay_style}
    assert learning_rate(schedule, 450) == pytest.approx(4.5e-6 + (4.5e-4 - 4.5e-6) * half)
    assert learning_rate(schedule, 500) == pytest.approx(4.5e-6)
    assert learning_rate(schedule, 600) == 4.5e-6


def test_constant_stays_at_the_peak():
    schedule = WSD | {"style": "constant", "end_iteration": 20}
    assert learning_rate(schedule, 5) == pytest.approx(2.25e-4)
    assert learning_rate(schedule, 1000) == 4.5e-4


def test_cosine_falls_from_the_end_of_the_warmup():
    schedule = WSD | {"style": "cosine"}
    assert learning_rate(schedule, 11) < 4.5e-4
    assert learning_rate(schedule, 255) == pytest.approx(4.5e-6 + (4.5e-4 - 4.5e-6) / 2)


@pytest.mark.parametrize("wrong", [{"style": "step"}, {"decay_style": "cubic"}])
def test_unknown_style_is_a_user_error(wrong):
    with pytest.raises(UserError, match="none of"):
        learning_rate(WSD | wrong, 450)
