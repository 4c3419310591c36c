"""Rewards and advantages of GRPO."""

import pytest
import torch

from nemoflow.engines.local.grpo import group_advantages
from nemoflow.engines.local.rewards import boxed_math, reward_of
from nemoflow.errors import UserError


def test_advantages_are_group_relative_and_equal_groups_drop_out():
    advantages, kept = group_advantages(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]))
    assert kept == 1
    assert advantages[4:].abs().max() == 0
    torch.testing.assert_close(advantages[:4].mean(), torch.tensor(0.0))
    torch.testing.assert_close(advantages[:4].std(), torch.tensor(1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("text", "reward"),
    [(r"\boxed{12}", 1), (r"so \boxed{12}.", 1), ("It is 12.", 0), (r"\boxed{13} \boxed{12}", 0)],
)
def test_only_a_boxed_answer_counts(text, reward):
    assert boxed_math({"expected_answer": "12"}, text) == reward


def test_an_agent_that_cannot_be_verified_here_is_a_user_error():
    with pytest.raises(UserError, match="engine: nemo_rl"):
        reward_of({"agent_ref": {"name": "swe"}})
