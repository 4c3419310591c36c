r"""Verifiable rewards by the name that an RL row's `agent_ref` gives."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from nemoflow.errors import UserError

BOXED = re.compile(r"\\boxed\{(-?\d+)\}")


def boxed_math(row: Mapping[str, Any], completion: str) -> float:
    r"""1 when the completion's first \boxed{integer} is the row's `expected_answer`, else 0."""
    found = BOXED.search(completion)
    return float(found is not None and int(found[1]) == int(row["expected_answer"]))


REWARDS: dict[str, Callable[[Mapping[str, Any], str], float]] = {"boxed_math": boxed_math}


def reward_of(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any], str], float]:
    """The reward function of a row; raises UserError for an agent that is not known here."""
    name = row["agent_ref"]["name"]
    if name not in REWARDS:
        raise UserError(
            f"agent_ref {name!r}: the local engine verifies {', '.join(REWARDS)}; other agents need"
            " engine: nemo_rl"
        )
    return REWARDS[name]
