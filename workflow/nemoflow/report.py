"""One page about a run: scores, products, training, data, generations, provenance."""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from nemoflow import lineage_drawing, manifest
from nemoflow.drawing import Chart, Line, Points, chart, duration, short, span
from nemoflow.files import read_json
from nemoflow.mixture_table import REPEATS, Mixture, Row, percent
from nemoflow.products import Product, trace
from nemoflow.samples import samples
from nemoflow.scores import ladders

TEMPLATES = Path(__file__).parents[1] / "report"
Products = dict[str, Product]


def render(
    eval: str,
    blends: list[str],
    checkpoints: list[str],
    packed: str | None,
    options: dict[str, Any],
    imported: str | None = None,
) -> str:
    """The page as HTML, with everything in it: nothing is loaded from elsewhere.

    `options` are those of the report's spec: the resolved config and the chain of stages, which
    `checkpoints` follow; `imported` is the model before the first of them, where there is one.
    What is known only from bytes or from `provenance/` may be absent.
    """
    config, scores = options["config"], read_json(eval)
    given = [path for path in (imported, *checkpoints, packed) if path]
    products = readable([eval, *blends, *given], given)
    named = zip(options["chain"], checkpoints, strict=False)
    stages = [Stage(name, products[path]) for name, path in named]
    follow(stages)
    return template().render(
        run=scores["run"],
        about=config.get("about"),
        ladder=ladders(scores["stages"], config["eval"]),
        parents=sorted({products[path].owner for path in given} - {scores["run"], "data"}),
        graph=lineage_drawing.draw(products, [p for p in given if p != packed], scores["run"]),
        imported=products[imported] if imported else None,
        stages=stages,
        curves=curves(stages),
        corpora=corpora(stages),
        mixtures=mixtures(blends, products, stages, options["gaps"]),
        packed=products[packed] if packed else None,
        rows=[product for product in products.values() if "rows" in product.content],
        samples=samples(products.values(), config["eval"]),
        facts=facts(stages, products.values()),
        models={stage: scores["models"][stage] for stage in config["eval"]["stages"]},
        origin=origin(products),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100),
    )


def readable(paths: list[str], manifests: list[str]) -> Products:
    """The products at some paths and all that they were made from.

    Raises UserError where one of `manifests` is none.
    """
    for path in manifests:
        manifest.read(path)
    return trace(paths)


def template() -> Template:
    """The page's template; whatever it is given is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["repeats"] = REPEATS
    environment.filters |= {"short": short, "duration": duration, "percent": percent}
    return environment.get_template("page.html.jinja")


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
        """A column of the curve over `tokens` or `step`, where both are finite."""
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


def curves(stages: list[Stage]) -> list[tuple[str, Chart]]:
    """The titled charts of training, each section's stages on one axis."""
    by = {name: [s for s in stages if s.section == name] for name in ("pretrain", "sft", "rl")}
    losses = {"loss": "next token", "valid_loss": "validation", "mtp_loss": "MTP"}
    asked = [
        ("Pretraining loss over tokens", by["pretrain"], "tokens", losses),
        ("Fine-tuning loss over steps", by["sft"], "step", losses),
        ("Reward over steps", by["rl"], "step", {"reward": "mean over completions"}),
        ("Completion length over steps", by["rl"], "step", {"completion_tokens": "tokens"}),
        ("Learning rate over tokens", by["pretrain"], "tokens", {"lr": "learning rate"}),
    ]
    drawn = [
        (title, chart(lines(members, names, x), marks=starts(members, x)))
        for title, members, x, names in asked
    ]
    return [(title, made) for title, made in drawn if made]


def lines(members: list[Stage], names: dict[str, str], x: str) -> list[Line]:
    """Columns of the curves of consecutive stages, by the names to show."""
    return [
        Line(name, column, [stage.points(column, x) for stage in members])
        for column, name in names.items()
    ]


def starts(members: list[Stage], x: str) -> list[tuple[float, str]]:
    """Where each of several stages begins."""
    if len(members) == 1:
        return []
    return [
        (
            stage.offset + (stage.from_tokens if x == "tokens" else stage.from_step),
            stage.name.partition(".")[2],
        )
        for stage in members
    ]


def corpora(stages: list[Stage]) -> list[Chart]:
    """The validation loss of every corpus in pretraining, on equal axes."""
    members = [stage for stage in stages if stage.section == "pretrain"]
    columns = sorted({column for stage in members for row in stage.curve for column in row})
    found = [
        Line(column.partition("/")[2], "valid_loss", [s.points(column, "tokens") for s in members])
        for column in columns
        if column.startswith("valid_loss/")
    ]
    if not found:
        return []
    y_range = span(y for line in found for _, y in line.points)
    x_end = max(x for line in found for x, _ in line.points)
    return [chart([line], (180, 100), y_range=y_range, x_end=x_end) for line in found]


def mixtures(
    blends: list[str], products: Products, stages: list[Stage], gaps: dict[str, list]
) -> list[tuple[Stage, list[Row], list]]:
    """The phases of pretraining, with corpora and gaps of each; `stages` begin with them."""
    pairs = zip(blends, stages, strict=False)
    return [
        (stage, mixed(products[path], products, stage), gaps.get(stage.name.partition(".")[2], []))
        for path, stage in pairs
    ]


def mixed(blend: Product, products: Products, stage: Stage) -> list[Row]:
    """The corpora of a phase, as they stand in its blend.json, the largest share first."""
    known = [path for path in (*blend.inputs, *stage.product.inputs) if path in products]
    given = {path: products[path].content for path in known}
    corpora = {Path(p).stem: told["shards"] for p, told in given.items() if "shards" in told}
    weights = blend.record.get("identity", {}).get("weights", {})
    seen = stage.content["tokens"] - stage.from_tokens
    return Mixture(weights, corpora, seen, blend.content["train"]).rows()


def facts(stages: list[Stage], products: Iterable[Product]) -> list[tuple[str, str]]:
    """A few numbers on the whole, named."""
    products = list(products)
    built = [product.built for product in products if product.built]
    told = [
        ("tokens of pretraining", short(stage.offset + stage.content["tokens"]))
        for stage in [stage for stage in stages if stage.section == "pretrain"][-1:]
    ]
    if built:
        resumed = sum(entry.get("attempts", 1) - 1 for entry in built)
        seconds = sum(entry["seconds"] for entry in built)
        told += [("jobs", str(len(built))), ("time of all jobs", duration(seconds))]
        told.append(("resumed", f"{resumed}×"))
        if hours := sum(product.gpu_hours for product in products):
            told.append(("GPU hours", short(hours)))
    return told


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
        "started": [product.built["started"] for product in (built[:1] + built[-1:])],
        "commits": Counter(product.built["commit"] for product in built),
        "hosts": Counter(product.built["host"] for product in built),
        "versions": {name: sorted(found) for name, found in sorted(versions.items())},
        "products": [product for product in built if manifest.PARTS not in product.path],
    }
