"""The stages of a run on the report: where each began, what it changed, and its curves."""

import csv
import math
from pathlib import Path

from nemoflow.drawing import Chart, Line, Points, chart, span
from nemoflow.products import Product

LOSSES = {"loss": "next token", "valid_loss": "validation", "mtp_loss": "MTP"}
# Title, section, and the columns by the names to show.
CHARTS = (
    ("Pretraining loss", "pretrain", LOSSES),
    ("Fine-tuning loss", "sft", LOSSES),
    ("Reward", "rl", {"reward": "mean over completions"}),
    ("Completion length", "rl", {"completion_tokens": "tokens"}),
    ("Learning rate of pretraining", "pretrain", {"lr": "learning rate"}),
)


class Stage:
    """A stage of the chain: its checkpoint's manifest, its curve, and where it began."""

    def __init__(self, name: str, product: Product):
        self.name, self.product = name, product
        self.content, self.built = product.content, product.built
        self.curve = read_curve(Path(product.path).with_name("curve.csv"))
        self.from_step = self.from_tokens = 0
        self.offset = 0  # tokens of the stages before it on a common axis

    @property
    def section(self) -> str:
        """pretrain, sft or rl."""
        return self.name.partition(".")[0]

    @property
    def resumed(self) -> int | None:
        """How often it went on from a checkpoint; None where nothing tells."""
        return self.built["attempts"] - 1 if "attempts" in self.built else None

    @property
    def result(self) -> list[tuple[str, float, float]]:
        """(measure, at first, at last) of what the stage is to change; validation where it is."""
        names = ("reward",) if self.section == "rl" else ("loss", "valid_loss")
        found = [(name, self.points(name)) for name in names]
        return [(name, points[0][1], points[-1][1]) for name, points in found if points]

    def points(self, column: str) -> Points:
        """A column of the curve over tokens, where both are finite."""
        rows = [(row.get("tokens"), row.get(column)) for row in self.curve]
        return [(self.offset + at, y) for at, y in rows if at is not None and y is not None]


def read_curve(path: Path) -> list[dict[str, float]]:
    """The rows of a curve.csv, without what is empty or not finite; none where it is absent."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = [
            {key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)
        ]
    return [{key: value for key, value in row.items() if math.isfinite(value)} for row in rows]


def follow(stages: list[Stage]) -> None:
    """Say of each stage where it begins: in its own count, and among those of its section."""
    for before, stage in zip(stages, stages[1:], strict=False):
        if stage.section != before.section:
            continue
        if stage.content["identity"].get("init") == "continue":
            stage.from_step, stage.from_tokens = before.content["step"], before.content["tokens"]
            stage.offset = before.offset
        else:
            stage.offset = before.offset + before.content["tokens"]


def charts(stages: list[Stage]) -> list[tuple[str, Chart]]:
    """The titled charts of training, each section's stages on one axis of tokens."""
    drawn = []
    for title, section, names in CHARTS:
        members = [stage for stage in stages if stage.section == section]
        lines = [
            Line(name, column, [stage.points(column) for stage in members])
            for column, name in names.items()
        ]
        drawn.append((title, chart(lines, marks=starts(members))))
    return [(title, made) for title, made in drawn if made]


def starts(members: list[Stage]) -> list[tuple[float, str]]:
    """Where each of several stages begins."""
    if len(members) == 1:
        return []
    return [(stage.offset + stage.from_tokens, stage.name.partition(".")[2]) for stage in members]


def corpora(stages: list[Stage]) -> list[Chart]:
    """The validation loss of every corpus in pretraining, on equal axes."""
    members = [stage for stage in stages if stage.section == "pretrain"]
    columns = sorted({column for stage in members for row in stage.curve for column in row})
    found = [
        Line(column.partition("/")[2], "valid_loss", [stage.points(column) for stage in members])
        for column in columns
        if column.startswith("valid_loss/")
    ]
    if not found:
        return []
    y_range = span(y for line in found for _, y in line.points)
    x_end = max(x for line in found for x, _ in line.points)
    return [chart([line], (180, 100), y_range=y_range, x_end=x_end) for line in found]
