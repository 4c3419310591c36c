"""Steps of NeMo-RL against the nodes of a profile."""

import pytest

from nemoflow import specs
from nemoflow.config import Config
from nemoflow.engines.nemo_rl import fits
from nemoflow.machine import Machine

CONFIG = Config("config")
CUT = {"tensor": 2, "pipeline": 1, "context": 2, "expert": 8, "expert_tensor": 1}
CUT |= {"sequence": True, "dispatcher": "alltoall"}


def problems(run, step, nodes, generate=0, environment=0, **changed):
    told, options = specs.rl(CONFIG, run, step)
    machine = Machine(nodes, 8, 12, generate, environment)
    return fits.problems({**told, **changed}, options, machine)


@pytest.mark.parametrize(
    ("run", "step", "nodes"),
    [
        ("super3", "rlvr1", (109, 72, 5)),
        ("super3", "swe1", (64, 32, 0)),
        ("super3", "swe2", (64, 32, 0)),
        ("super3", "rlhf", (72, 32, 8)),
        ("nano3", "rlvr", (32, 0, 0)),
        ("nano3", "rlhf", (40, 0, 8)),
        ("nano3", "dpo", (4, 0, 0)),
    ],
)
def test_released_steps_fit_their_nodes(run, step, nodes):
    assert problems(run, step, *nodes) == []


@pytest.mark.parametrize(
    ("step", "nodes", "changed", "key", "text"),
    [
        ("super3.rlvr1", (110, 72, 6), {}, "judges", "a whole node would idle"),
        ("super3.swe1", (32, 0, 0), {}, "asynchronous", "generate_nodes"),
        (
            "super3.rlhf",
            (72, 32, 8),
            {"environments": ["mcqa"]},
            "judges.genrm_model.used_by",
            "genrm",
        ),
        ("nano3.dpo", (4, 0, 0), {"parallel": CUT}, "parallel.context", "set 1"),
        ("nano3.rlvr", (32, 0, 0), {"advantage_clip": 50.0}, "release", "grpo.advantage_clip_low"),
        ("nano3.rlvr", (33, 0, 1), {}, "release", "nano-v3 keeps no nodes for judges"),
        ("nano3.dpo", (5, 1, 0), {}, "algorithm", "dpo generates nothing"),
        ("nano3.rlvr", (32, 0, 0), {"nemo_rl": {"x": 1}}, "nemo_rl", "has no key x"),
        ("nano3.rlvr", (32, 0, 0), {"environments": ["mcq"]}, "environments", "did you mean mcqa"),
    ],
)
def test_what_does_not_fit_is_named(step, nodes, changed, key, text):
    found = dict(problems(*step.split("."), *nodes, **changed))
    assert text in found[key]
