"""One page about a run: scores, products, training, data, generations, provenance."""

import csv
import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nemoflow import lineage, manifest
from nemoflow.drawing import Chart, Line, Points, chart, duration, reach, short, span
from nemoflow.files import read_json
from nemoflow.lineage import Product

TEMPLATES = Path(__file__).parents[1] / "report"
SHOWN = 6  # generations of a task
LONGEST = 400  # characters of a prompt or an answer
Products = dict[str, Product]


def render(
    eval: str, blends: list[str], checkpoints: list[str], packed: str, options: dict[str, Any]
) -> str:
    """The page as HTML, with everything in it: nothing is loaded from elsewhere.

    `options` are those of the report's spec: the resolved config and the chain of stages, which
    `checkpoints` follow. What is known only from bytes or from `provenance/` may be absent.
    """
    config, scores = options["config"], read_json(eval)
    for path in (*checkpoints, packed):
        manifest.read(path)
    products = lineage.trace([eval, *blends, *checkpoints, packed])
    stages = [
        Stage(name, products[path])
        for name, path in zip(options["chain"], checkpoints, strict=False)
    ]
    follow(stages)
    ladder = ladders(scores["stages"], config["eval"])
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "duration": duration}
    return environment.get_template("page.html.jinja").render(
        run=scores["run"],
        about=config.get("about"),
        ladder=ladder,
        graph=lineage.draw(products, checkpoints, scores["run"]),
        stages=stages,
        curves=curves(stages),
        sources=sources(stages),
        mixtures=[
            (stage.name, blended(products[path], products, stage))
            for path, stage in zip(blends, stages, strict=False)
        ],
        packed=products[packed],
        rows=[product for product in products.values() if "rows" in product.content],
        samples=samples(products, ladder),
        models=scores["models"],
        origin=origin(products),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100),
    )


class Stage:
    """A stage of the chain: its checkpoint's manifest, its curve, and where it began."""

    def __init__(self, name: str, product: Product):
        self.name, self.product = name, product
        self.content, self.built = product.content, product.built
        self.curve = read_curve(Path(product.path).with_name("curve.csv"))
        self.from_step = self.from_tokens = 0
        self.offset = 0  # tokens or steps of the stages before it on a common axis

    @property
    def section(self) -> str:
        """pretrain, sft or rl."""
        return self.name.partition(".")[0]

    @property
    def result(self) -> list[tuple[str, float, float]]:
        """(measure, at first, at last) of what the stage is to change; validation where it is."""
        names = ("reward",) if self.section == "rl" else ("loss", "valid_loss")
        found = [(name, self.points(name)) for name in names]
        return [(name, points[0][1], points[-1][1]) for name, points in found if points]

    def points(self, column: str, x: str = "step") -> Points:
        """A column of the curve over another one, where both are finite."""
        rows = [(row.get(x), row.get(column)) for row in self.curve]
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
            amount = "tokens" if stage.section == "pretrain" else "step"
            stage.offset = before.offset + before.content[amount]


@dataclass(frozen=True)
class Ladder:
    """The scores of a task: `steps` are (stage, score) in the config's order."""

    task: str
    steps: list[tuple[str, dict[str, Any]]]

    def place(self, value: float) -> float:
        """Where a score stands between the ends of the axis, 0 .. 100; the axis holds 0 .. 1."""
        scores = [score for _, score in self.steps]
        values = [0.0, 1.0] + [s[key] for s in scores for key in ("value", "published") if key in s]
        low, high = reach(values)
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


def curves(stages: list[Stage]) -> list[tuple[str, Chart]]:
    """The titled charts of training, each section's stages on one axis."""
    by = {name: [s for s in stages if s.section == name] for name in ("pretrain", "sft", "rl")}
    losses = {"loss": "next token", "valid_loss": "validation", "mtp_loss": "token after it (MTP)"}
    asked = [
        ("Pretraining loss", by["pretrain"], "tokens", losses),
        ("Fine-tuning loss", by["sft"], "step", losses),
        ("Reward", by["rl"], "step", {"reward": "mean over completions"}),
        ("Completion length", by["rl"], "step", {"completion_tokens": "tokens"}),
        ("Learning rate in pretraining", by["pretrain"], "tokens", {"lr": "learning rate"}),
    ]
    drawn = [
        (title, chart(series(members, names, x), x, marks=starts(members, x)))
        for title, members, x, names in asked
    ]
    return [(title, made) for title, made in drawn if made]


def series(members: list[Stage], names: dict[str, str], x: str) -> list[Line]:
    """Columns of the curves of consecutive stages as lines."""
    return [
        Line(name, column, [point for stage in members for point in stage.points(column, x)])
        for column, name in names.items()
    ]


def starts(members: list[Stage], x: str) -> list[tuple[float, str]]:
    """Where each of several stages begins."""
    begun = [stage.from_tokens if x == "tokens" else stage.from_step for stage in members]
    names = [stage.name.partition(".")[2] for stage in members]
    places = [stage.offset + place for stage, place in zip(members, begun, strict=True)]
    return list(zip(places, names, strict=True)) if len(members) > 1 else []


def sources(stages: list[Stage]) -> list[Chart]:
    """The validation loss of every corpus, on equal axes."""
    members = [stage for stage in stages if stage.section == "pretrain"]
    columns = {key: key.partition("/")[2] for s in members for row in s.curve for key in row}
    columns = {key: name for key, name in sorted(columns.items()) if key.startswith("valid_loss/")}
    lines = [line for line in series(members, columns, "tokens") if line.points]
    if not lines:
        return []
    ranges = {
        "y_range": span(y for line in lines for _, y in line.points),
        "x_range": reach(x for line in lines for x, _ in line.points),
    }
    named = [Line(line.name, "valid_loss", line.points) for line in lines]
    return [chart([line], "tokens", size=(220, 110), **ranges) for line in named]


@dataclass(frozen=True)
class Blended:
    """A corpus in a phase: its share as asked (None where unknown) and as it stands in the blend.

    `tokens` are those it has for training, `epochs` how often the phase saw each of them.
    """

    corpus: str
    asked: float | None
    realised: float
    tokens: int | None
    epochs: float | None


def blended(blend: Product, products: Products, stage: Stage) -> list[Blended]:
    """The corpora of a phase's blend, as it stands in blend.json."""
    entries = blend.content["train"]
    weights: dict[str, float] = defaultdict(float)
    for weight, prefix in zip(entries[::2], entries[1::2], strict=True):
        weights[Path(prefix).parents[1].name] += float(weight)
    asked = blend.record.get("identity", {}).get("weights", {})
    corpora = {Path(path).stem: products[path] for path in stage.product.inputs}
    seen = stage.content["tokens"] - stage.from_tokens
    found = []
    for corpus, weight in weights.items():
        share = weight / sum(weights.values())
        content = corpora[corpus].content if corpus in corpora else {}
        tokens = int(lineage.measure(content)[0]) or None
        found.append(
            Blended(
                corpus,
                asked[corpus] / sum(asked.values()) if corpus in asked else None,
                share,
                tokens,
                share * seen / tokens if tokens else None,
            )
        )
    return found


def samples(products: Products, ladder: list[Ladder]) -> list[tuple[Ladder, list[dict[str, Any]]]]:
    """Of each task the first items, with the answer of every stage whose samples are here."""
    places = {
        (Path(path).parent.name, Path(path).stem): manifest.payload(path) / "samples.jsonl"
        for path, product in products.items()
        if product.kind == "scores"
    }
    shown = []
    for task in ladder:
        answers = {
            stage: first_lines(places[stage, task.task])
            for stage, _ in task.steps
            if (stage, task.task) in places and places[stage, task.task].exists()
        }
        if answers:
            items = [
                item(dict(zip(answers, given, strict=True)), task.steps[0][1]["metric"])
                for given in zip(*answers.values(), strict=False)
            ]
            shown.append((task, items))
    return shown


def first_lines(path: Path) -> list[dict[str, Any]]:
    """The samples that are shown of a task."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, SHOWN)]


def item(given: dict[str, dict[str, Any]], metric: str) -> dict[str, Any]:
    """One question through all stages: {question, target, answers: [(stage, text, score)]}."""
    one = next(iter(given.values()))
    doc, target = one["doc"], one["target"]
    choices = doc.get("choices")
    if isinstance(choices, list) and isinstance(target, int):
        target = choices[target]
    return {
        "question": cut(str(doc.get("question") or one["prompt"])),
        "target": cut(str(target)),
        "answers": [
            (stage, cut(answer(sample, choices, metric)), sample["score"])
            for stage, sample in given.items()
        ],
    }


def answer(sample: dict[str, Any], choices: Any, metric: str) -> str:
    """What a model said, or which choice it finds likeliest (`acc_norm`: per character)."""
    said = sample["response"]
    if not isinstance(said[0], list):
        return str(sample.get("generation", said[0]))
    likelihoods = [float(choice[0]) for choice in said]
    named = isinstance(choices, list) and len(choices) == len(said)
    if named and metric.startswith("acc_norm"):
        likelihoods = [
            value / len(text) for value, text in zip(likelihoods, choices, strict=True)
        ]
    best = likelihoods.index(max(likelihoods))
    return str(choices[best]) if named else f"choice {best + 1} of {len(said)}"


def cut(text: str) -> str:
    """The end of a long text: of a prompt with examples, the question."""
    return text if len(text) <= LONGEST else f"… {text[-LONGEST:]}"


def origin(products: Products) -> dict[str, Any]:
    """Who built it all: counts of commits and hosts, versions, times, and the products built."""
    built = sorted(
        (product for product in products.values() if product.built),
        key=lambda product: product.built["started"],
    )
    versions: dict[str, set[str]] = defaultdict(set)
    for product in built:
        for name, version in product.built["versions"].items():
            versions[name].add(version)
    return {
        "jobs": len(built),
        "seconds": sum(product.built["seconds"] for product in built),
        "started": [product.built["started"] for product in (built[:1] + built[-1:])],
        "commits": Counter(product.built["commit"] for product in built),
        "hosts": Counter(product.built["host"] for product in built),
        "versions": {name: sorted(found) for name, found in sorted(versions.items())},
        "products": [product for product in built if manifest.PARTS not in product.path],
    }
