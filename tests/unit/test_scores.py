"""Scores gathered stage by stage, held against published ones, told in a table."""

import pytest

from nemoflow import files, manifest, scores, stages
from nemoflow.errors import UserError


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.5, "passed"), (0.52, "passed"), (0.479, "failed"), (0.6, "failed")]
)
def test_a_score_within_the_tolerance_passes(value, verdict):
    told = scores.verdict({"value": value, "stderr": 0.3}, {"value": 0.5, "tolerance": 0.02})
    assert told == {"published": 0.5, "tolerance": 0.02, "verdict": verdict}


@pytest.mark.parametrize(
    ("value", "stderr", "tolerance", "verdict"),
    [
        (0.55, 0.02, 0.05, "passed"),  # a point and two standard errors
        (0.551, 0.02, 0.05, "failed"),
        (0.45, 0.02, 0.05, "passed"),
        (0.51, None, 0.01, "passed"),
        (0.511, 0.0, 0.01, "failed"),
    ],
)
def test_the_tolerance_is_that_of_our_score_unless_it_is_set(value, stderr, tolerance, verdict):
    told = scores.verdict({"value": value, "stderr": stderr}, {"value": 0.5})
    assert told == {"published": 0.5, "tolerance": tolerance, "verdict": verdict}


def test_failures_are_told_by_name():
    fine = {"value": 0.5, "stderr": 0.01, "published": 0.5, "tolerance": 0.1, "verdict": "passed"}
    wrong = {**fine, "published": 0.8589, "verdict": "failed"}
    stages = {"sft": {"arc": fine, "mmlu": {"value": 0.2}}, "pretrain": {"mmlu": wrong}}
    assert scores.failures(stages) == [
        "pretrain mmlu: 0.5000 is not the published 0.8589 ± 0.1000: failed"
    ]


def test_what_scores_will_be_held_against_is_told():
    published = {"pretrain": {"mmlu": {"value": 0.8589}, "arc": {"value": 0.9, "tolerance": 0.02}}}
    settings = {"stages": ["pretrain"], "tasks": ["mmlu"], "published": published}
    assert scores.expected(settings) == [
        "pretrain mmlu: 0.8589 ± (0.01 + 2 std. errors)",
        "pretrain arc: 0.9 ± 0.02, not evaluated",
    ]
    assert scores.expected({"stages": ["sft"], "tasks": ["mmlu"]}) == []


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
    assert gathered["stages"]["rl"]["arc"]["verdict"] == "passed"
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


def test_a_wrong_score_fails_by_name_and_stops_no_job(evaluated, tmp_path, monkeypatch, capsys):
    published = {"rl": {"arc": {"value": 0.99}, "mmlu": {"value": 0.6}}}  # ± 0.21
    identity = {"stage": "eval", "stages": ["sft", "rl"], "tasks": ["mmlu", "arc"]}
    told = {"stage": "eval", "run": "x", "identity": {**identity, "published": published}}
    files.write_json(tmp_path / "spec.json", told | {"options": {}})
    monkeypatch.chdir(tmp_path)
    given = [[path.name for path in paths] for paths in evaluated]
    stages.eval("spec.json", "x", *given, "eval.json")
    scored = scores.read("eval.json")["rl"]
    assert (scored["arc"]["verdict"], scored["mmlu"]["verdict"]) == ("failed", "passed")
    assert scored["arc"]["tolerance"] == pytest.approx(0.21)
    said = capsys.readouterr().err
    assert "eval.json: rl arc: 0.7500 is not the published 0.9900 ± 0.2100: failed" in said
    assert "mmlu" not in said
