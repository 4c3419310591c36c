"""What is wrong with a job is found before it is submitted, by Megatron-Bridge's own checks."""

import io
import json
import re

import pytest
from bridge_jobs import asked

from nemoflow.engines.megatron import validate

pytestmark = pytest.mark.usefixtures("gpus_put_back")
FAULTS = [
    ({"parallel__tensor": 3}, "pretrain.phases.phase1.parallel", "not divisible"),
    ({"parallel__pipeline": 3}, "pretrain.phases.phase1.parallel", "not divisible"),
    ({"parallel__tensor": 64}, "pretrain.phases.phase1.parallel.tensor", "multiple"),
    ({"model__attention__kv_heads": 3}, "pretrain.phases.phase1.parallel.tensor", "groups"),
    ({"batch__global": 3073}, "pretrain.phases.phase1.batch.global", "divisible"),
    ({"batch__sequence": 8193, "parallel__context": 2}, "batch.sequence", "divisible"),
    ({"model__layers": 87}, "pretrain.model.layers", "does not match"),
    ({"precision": "fp32"}, "pretrain.precision", "set one of bf16, fp8, nvfp4"),
    ({"gpu": "h100"}, "pretrain.precision", "no nvfp4 on h100"),
    ({"megatron__model__recompute_granularty": 1}, "granularty", "has no field"),
    ({"megatron__model__hidden_size": 1}, "megatron.model.hidden_size", "model.hidden_size says"),
]


@pytest.mark.parametrize(("changes", "key", "said"), FAULTS)
def test_faults(changes, key, said):
    """What is wrong is found without a GPU, and said with the key to change."""
    [found] = validate.problems(asked("super3", "pretrain.phase1", **changes))
    assert found["key"].endswith(key)
    assert re.search(said, found["message"])


def test_micro_batches_of_packed_rows():
    [found] = validate.problems(asked("super3", "sft", batch__micro=2))
    assert found["key"] == "sft.batch.micro"


def test_the_program(monkeypatch, capsys):
    """Jobs come in as JSON, problems go out, in the jobs' order; nothing else is printed there."""
    sound = asked("super3", "pretrain.phase2")
    wrong = asked("super3", "pretrain.phase1", precision="fp32")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([wrong, sound])))
    validate.main()
    first, second = json.loads(capsys.readouterr().out)
    assert first["problems"][0]["key"] == "pretrain.precision"
    assert second == {"key": "pretrain.phase2", "problems": []}
