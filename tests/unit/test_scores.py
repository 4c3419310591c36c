"""Scores gathered stage by stage, held against published ones, told in a table."""

import pytest

from nemoflow import files, manifest, scores
from nemoflow.errors import UserError


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.5, "reproduced"), (0.52, "reproduced"), (0.479, "differs"), (0.6, "differs")],
)
def test_a_score_within_the_tolerance_is_reproduced(value, verdict):
    told = scores.verdict(value, {"value": 0.5, "tolerance": 0.02})
    assert told == {"published": 0.5, "tolerance": 0.02, "verdict": verdict}


@pytest.fixture
def evaluated(tmp_path):
    """Manifests of two models and of two tasks on each: (models, scores)."""
    models, scored = [], []
    for stage in ("sft", "rl"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "model").write_text(stage)
        models.append(tmp_path / f"{stage}.json")
        manifest.write(models[-1], {})
        for task, value in (("mmlu", 0.25), ("arc", 0.5)):
            scored.append(tmp_path / f"{stage}-{task}.json")
            fact = {"metric": "acc,none", "value": value + (stage == "rl") / 4, "n": 4}
            manifest.write(scored[-1], {}, **fact, stderr=0.1, more="left out")
    return models, scored


def test_scores_come_in_the_order_of_stages_and_tasks(evaluated):
    published = {"rl": {"arc": {"value": 0.7, "tolerance": 0.1}}}
    settings = {"stages": ["sft", "rl"], "tasks": ["mmlu", "arc"], "published": published}
    gathered = scores.gather("micro", settings, *evaluated)
    values = {
        s: {t: told["value"] for t, told in of.items()} for s, of in gathered["stages"].items()
    }
    assert values == {"sft": {"mmlu": 0.25, "arc": 0.5}, "rl": {"mmlu": 0.5, "arc": 0.75}}
    assert gathered["stages"]["sft"]["arc"].keys() == {"metric", "value", "stderr", "n"}
    assert gathered["stages"]["rl"]["arc"]["verdict"] == "reproduced"
    assert gathered["models"] == {
        stage: manifest.read(model)["md5"]
        for stage, model in zip(("sft", "rl"), evaluated[0], strict=True)
    }


def test_a_missing_score_is_named(evaluated):
    models, scored = evaluated
    scored[2].unlink()
    with pytest.raises(UserError, match="rl-mmlu.json: there is no such product"):
        scores.gather("micro", {"stages": ["sft", "rl"], "tasks": ["mmlu", "arc"]}, models, scored)


def test_the_table_is_aligned(tmp_path):
    stages = {
        "sft": {"arithmetic": {"value": 0.25}, "arc": {"value": 1.0}},
        "rl": {"arithmetic": {"value": 0.9756}, "arc": {"value": 0.5}},
    }
    files.write_json(tmp_path / "eval.json", {"stages": stages})
    assert scores.table(scores.read(tmp_path / "eval.json")) == [
        "stage  arc  arithmetic",
        "sft    1.000       0.250",
        "rl     0.500       0.976",
    ]
