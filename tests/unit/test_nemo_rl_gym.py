"""Environments and judges by NeMo-Gym's names."""

import pytest

from nemo_rl_steps import CONFIG, generated
from nemoflow.engines.nemo_rl import gym
from nemoflow.errors import UserError


def test_every_environment_of_the_recipes_is_known():
    for run in ("super3", "nano3"):
        for step in CONFIG.run(run).rl.steps.values():
            for name in step.environments:
                assert gym.environment(name)["config"].endswith(".yaml")
    assert gym.environment("resources_servers/x/configs/y.yaml")["config"].endswith("y.yaml")
    with pytest.raises(UserError, match="did you mean code_gen"):
        gym.environment("code_gem")


def test_a_setting_of_no_server_is_an_error():
    with pytest.raises(UserError, match="did you mean code_gen"):
        generated("nano3", "rlvr", settings={"codegen": {"num_processes": 1}})


def test_sandboxes_need_a_folder(monkeypatch):
    monkeypatch.delenv("NEMOFLOW_SANDBOXES", raising=False)
    with pytest.raises(UserError, match="NEMOFLOW_SANDBOXES"):
        generated("super3", "swe2")
