"""Scores of a run: one file for people, `dvc metrics` and the report."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow import manifest
from nemoflow.files import read_json

SECTIONS = ("pretrain", "merged", "sft", "rl")
MARGIN, ERRORS = 0.01, 2  # of a tolerance that is not set: a point, and standard errors
Scores = dict[str, dict[str, dict[str, Any]]]


def verdict(score: dict[str, Any], published: dict[str, float]) -> dict[str, Any]:
    """A score held against a published one; a verdict that fails is shown, and fails no job.

    `tolerance` is the one that was used: the published score's own, or MARGIN and ERRORS standard
    errors of ours.
    """
    error = score["stderr"] or 0.0
    tolerance = published.get("tolerance", round(MARGIN + ERRORS * error, 9))
    distance = round(abs(score["value"] - published["value"]), 9)  # 0.52 - 0.5 is over 0.02
    return {
        "published": published["value"],
        "tolerance": tolerance,
        "verdict": "passed" if distance <= tolerance else "failed",
    }


def failures(stages: Scores) -> list[str]:
    """The scores that are not the published ones, each in a sentence, in pipeline order."""
    return [
        f"{stage} {task}: {score['value']:.4f} is not the published {score['published']:.4f}"
        f" ± {score['tolerance']:.4f}: failed"
        for stage in in_order(stages)
        for task, score in stages[stage].items()
        if score.get("verdict") == "failed"
    ]


def expected(settings: dict[str, Any]) -> list[str]:
    """What scores will be held against, a line for each published one; `settings` as in `gather`.

    A score of a stage or task that is not evaluated is told, too: nothing will be held against it.
    """
    lines = []
    for stage, published in settings.get("published", {}).items():
        for task, known in published.items():
            given = known.get("tolerance")
            within = f"± {given:g}" if given is not None else f"± ({MARGIN} + {ERRORS} std. errors)"
            asked = stage in settings["stages"] and task in settings["tasks"]
            lines.append(
                f"{stage} {task}: {known['value']:g} {within}"
                + ("" if asked else ", not evaluated")
            )
    return lines


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
                score |= verdict(score, known)
            stages[stage][task] = score
    digests = {
        stage: manifest.read(model)["md5"]
        for stage, model in zip(settings["stages"], models, strict=True)
    }
    return {"run": run, "stages": stages, "models": digests}


def in_order(stages: Iterable[str]) -> list[str]:
    """Names of stages in pipeline order."""
    return sorted(stages, key=lambda stage: SECTIONS.index(stage.partition(".")[0]))


def table(stages: Scores) -> list[str]:
    """The scores as aligned text, a line per stage, in pipeline order."""
    tasks = list(dict.fromkeys(task for scores in stages.values() for task in scores))
    width = max(len(stage) for stage in (*stages, "stage"))
    lines = ["  ".join([f"{'stage':<{width}}", *tasks])]
    for stage in in_order(stages):
        cells = [f"{stages[stage][task]['value']:>{len(task)}.3f}" for task in tasks]
        lines.append("  ".join([f"{stage:<{width}}", *cells]))
    return lines


def read(path: str | Path) -> Scores:
    """The scores in an eval.json."""
    return read_json(path)["stages"]


@dataclass(frozen=True)
class Ladder:
    """The scores of a task: `steps` are (stage, score) in the config's order."""

    task: str
    steps: list[tuple[str, dict[str, Any]]]

    def place(self, value: float) -> float:
        """Where a score stands between the ends of the axis, 0 .. 100; the axis holds 0 .. 1."""
        scores = [score for _, score in self.steps]
        values = [0.0, 1.0] + [s[key] for s in scores for key in ("value", "published") if key in s]
        low, high = min(values), max(values)
        return round(100 * min(max((value - low) / (high - low), 0), 1), 2)

    @property
    def word(self) -> str:
        """What becomes of the score from the first stage to the last.

        It moves when that is more than two standard errors of the difference.
        """
        (_, begun), (_, ended) = self.steps[0], self.steps[-1]
        error = math.hypot(begun["stderr"] or 0, ended["stderr"] or 0)
        change = ended["value"] - begun["value"]
        if abs(change) <= 2 * error:
            return "does not move"
        return "rises" if change > 0 else "falls"

    @property
    def verdicts(self) -> list[str]:
        """How the scores stand to the published ones, where there are any."""
        return [score["verdict"] for _, score in self.steps if "verdict" in score]


def ladders(stages: dict[str, Any], asked: dict[str, Any]) -> list[Ladder]:
    """The scores task by task; `asked` is the config's eval section, which has their order."""
    return [
        Ladder(task, [(name, stages[name][task]) for name in asked["stages"] if name in stages])
        for task in asked["tasks"]
    ]
