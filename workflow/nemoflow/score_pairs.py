"""Scores of two sides, task by task: the difference, and whether it is more than noise."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nemoflow.scores import Scores, in_order

# lm_eval/api/metrics.py: those registered with higher_is_better=False.
LOWER_IS_BETTER = {
    "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter",
}  # fmt: skip
NOTE = (
    "std. error: of the difference, √(A² + B²), items taken as independent;"
    " within noise: the difference is below 2 of them"
)
HEADER = ["stage", "task", "A", "B", "difference", "std. error", "verdict"]


@dataclass(frozen=True)
class Score:
    """A task's score of a stage on both sides, None where a side has none."""

    stage: str
    task: str
    a: dict[str, Any] | None
    b: dict[str, Any] | None
    lower_is_better: bool = False

    @property
    def difference(self) -> float | None:
        """B - A."""
        return self.b["value"] - self.a["value"] if self.a and self.b else None

    @property
    def error(self) -> float | None:
        """The standard error of the difference, items taken as independent."""
        errors = [score.get("stderr") if score else None for score in (self.a, self.b)]
        return None if None in errors else math.hypot(*errors)

    def told(self) -> dict[str, Any]:
        """The pair in a JSON document."""
        return {
            **{key: getattr(self, key) for key in ("stage", "task", "a", "b", "difference")},
            "stderr": self.error,
            "verdict": self.verdict,
        }

    @property
    def verdict(self) -> str:
        """What the difference is to be called."""
        if self.difference is None:
            return "only A" if self.a else "only B"
        if self.a["metric"] != self.b["metric"]:
            return f"other metric: {self.a['metric']} → {self.b['metric']}"
        if self.difference == 0:
            return "same"
        if self.error is None:
            return "no standard error"
        if abs(self.difference) < 2 * self.error:
            return "within noise"
        return "worse" if (self.difference < 0) != self.lower_is_better else "better"


def paired(
    before: Scores, after: Scores, tasks: Mapping[tuple[str, str], dict[str, Any]]
) -> list[Score]:
    """The scores of both sides, in the order of the pipeline.

    `tasks` are the identities of scores, by (stage, task).
    """
    found = []
    for stage in in_order({**before, **after}):
        ours, theirs = before.get(stage, {}), after.get(stage, {})
        for task in {**ours, **theirs}:
            a, b = ours.get(task), theirs.get(task)
            lower = is_lower_better((b or a)["metric"], tasks.get((stage, task), {}))
            found.append(Score(stage, task, a, b, lower))
    return found


def is_lower_better(metric: str, identity: dict[str, Any]) -> bool:
    """Whether a lower value is better, as the task says, or else as lm-eval has it."""
    name, harness = metric.partition(",")[0], identity.get("task", {}).get("harness")
    for told in harness.get("metric_list", []) if isinstance(harness, dict) else []:
        if told.get("metric") == name and "higher_is_better" in told:
            return not told["higher_is_better"]
    return name in LOWER_IS_BETTER


def table(scores: list[Score]) -> Iterator[str]:
    """The scores as aligned text."""

    def number(value: float | None, form: str = ".3f") -> str:
        return "–" if value is None else format(value, form)

    rows = [HEADER] + [
        [
            score.stage,
            score.task,
            *(number(told and told["value"]) for told in (score.a, score.b)),
            number(score.difference, "+.3f"),
            number(score.error),
            score.verdict,
        ]
        for score in scores
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        left = [f"{cell:<{width}}" for cell, width in zip(row[:2], widths, strict=False)]
        right = [f"{cell:>{w}}" for cell, w in zip(row[2:6], widths[2:6], strict=True)]
        yield "  ".join([*left, *right, row[6]])
