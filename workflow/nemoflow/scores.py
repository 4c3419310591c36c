"""Scores of a run: one file for people, `dvc metrics` and the report."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nemoflow import manifest
from nemoflow.files import read_json

SECTIONS = ("pretrain", "sft", "rl")
Scores = dict[str, dict[str, dict[str, Any]]]


def verdict(value: float, published: dict[str, float]) -> dict[str, Any]:
    """A score held against a published one; a verdict that fails is shown, and fails no job."""
    distance = round(abs(value - published["value"]), 9)  # 0.52 - 0.5 is a little over 0.02
    within = distance <= published["tolerance"]
    return {
        "published": published["value"],
        "tolerance": published["tolerance"],
        "verdict": "reproduced" if within else "differs",
    }


def gather(
    run: str, settings: dict[str, Any], models: Iterable[str], scores: Iterable[str]
) -> dict[str, Any]:
    """{run, stages: {stage: {task: {metric, value, stderr, n, …}}}, models: {stage: digest}}.

    `models` come in the order of the evaluated stages; `scores` stage by stage, task by task.
    """
    published = settings.get("published", {})
    given, stages = iter(scores), {}
    for stage in settings["stages"]:
        stages[stage] = {}
        for task in settings["tasks"]:
            content = manifest.read(next(given))
            score = {key: content[key] for key in ("metric", "value", "stderr", "n")}
            if known := published.get(stage, {}).get(task):
                score |= verdict(score["value"], known)
            stages[stage][task] = score
    digests = {
        stage: manifest.read(model)["md5"]
        for stage, model in zip(settings["stages"], models, strict=True)
    }
    return {"run": run, "stages": stages, "models": digests}


def table(stages: Scores) -> list[str]:
    """The scores as aligned text, a line per stage, in pipeline order."""
    order = sorted(stages, key=lambda stage: SECTIONS.index(stage.partition(".")[0]))
    tasks = list(dict.fromkeys(task for scores in stages.values() for task in scores))
    width = max(len(stage) for stage in (*stages, "stage"))
    lines = ["  ".join([f"{'stage':<{width}}", *tasks])]
    for stage in order:
        cells = [f"{stages[stage][task]['value']:>{len(task)}.3f}" for task in tasks]
        lines.append("  ".join([f"{stage:<{width}}", *cells]))
    return lines


def read(path: str | Path) -> Scores:
    """The scores in an eval.json."""
    return read_json(path)["stages"]
