"""The learning rate at a step, as Megatron-LM's `OptimizerParamScheduler` gives it."""

import math
from collections.abc import Mapping
from typing import Any

from nemoflow.errors import UserError

ANNEALS = {
    "minus_sqrt": lambda ratio: 1 - math.sqrt(ratio),
    "linear": lambda ratio: 1 - ratio,
    "cosine": lambda ratio: 0.5 * (math.cos(math.pi * ratio) + 1),
}


def learning_rate(schedule: Mapping[str, Any], step: int) -> float:
    """The learning rate of the update that follows `step` finished ones.

    Linear warm-up from 0 over `warmup_iterations`, then `peak`. With style "wsd" the last
    `decay_iterations` before `end_iteration` fall from `peak` to `floor` by `decay_style`; with
    "cosine" all iterations after the warm-up do; `floor` holds afterwards. "constant" stays at
    `peak`. As in Megatron-LM, the first update of a warm-up has rate 0, since its scheduler counts
    finished samples. Raises UserError for another style.
    """
    peak, floor, warmup = schedule["peak"], schedule["floor"], schedule["warmup_iterations"]
    if warmup and step <= warmup:
        return peak * step / warmup
    if schedule["style"] == "constant":
        return peak
    style, length = schedule["decay_style"], schedule["decay_iterations"]
    if schedule["style"] == "cosine":
        style, length = "cosine", schedule["end_iteration"] - warmup
    elif schedule["style"] != "wsd":
        raise UserError(f"schedule.style: {schedule['style']!r} is none of wsd, cosine, constant")
    if style not in ANNEALS:
        raise UserError(f"schedule.decay_style: {style!r} is none of {', '.join(ANNEALS)}")
    if step > schedule["end_iteration"]:
        return floor
    into_anneal = step - (schedule["end_iteration"] - length)
    return floor + (peak - floor) * (ANNEALS[style](into_anneal / length) if into_anneal > 0 else 1)
