"""One page about a run: verdict, scores, products, training, data, answers, provenance."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from nemoflow import caveats, curves, lineage_drawing, manifest
from nemoflow.curves import Stage
from nemoflow.drawing import duration, short
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
    parity: Iterable[str] = (),
    contamination: str | None = None,
) -> str:
    """The page as HTML, with everything in it: nothing is loaded from elsewhere.

    `options` are those of the report's spec: the resolved config and the chain of stages, which
    `checkpoints` follow; `imported` is the model before the first of them, where there is one;
    `parity` are the verdicts on conversions. What is known only from bytes or from `provenance/`
    may be absent.
    """
    given = [path for path in (imported, *checkpoints, packed) if path]
    products = readable([eval, *blends, *given], given)
    named = zip(options["chain"], checkpoints, strict=False)
    stages = [Stage(name, products[path]) for name, path in named]
    curves.follow(stages)
    page = {
        **scored(read_json(eval), options["config"], products),
        **trained(stages, products, given, packed),
        "parity": {Path(path).stem: read_json(path) for path in parity},
        "contamination": read_json(contamination) if contamination else None,
        "imported": products[imported] if imported else None,
        "mixtures": mixtures(blends, products, stages, options["gaps"]),
        "gaps": options["gaps"],
        "origin": origin(products),
    }
    told = caveats.gather(page, products, options["config"])
    return template().render(**page, caveats=told, checks=caveats.checks(page))


def scored(scores: dict[str, Any], config: dict[str, Any], products: Products) -> dict[str, Any]:
    """The run, its scores and answers; `scores` are eval.json's."""
    asked = config["eval"]
    return {
        "run": scores["run"],
        "about": config.get("about"),
        "ladder": ladders(scores["stages"], asked),
        "models": {stage: scores["models"][stage] for stage in asked["stages"]},
        "samples": samples(products.values(), asked),
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100),
    }


def trained(
    stages: list[Stage], products: Products, given: list[str], packed: str | None
) -> dict[str, Any]:
    """The stages, their curves, and the graph of what led to them; `given` are their products."""
    averages = [product for product in products.values() if product.rule == "merge"]
    models = with_averages([path for path in given if path != packed], averages)
    run = next(product.owner for product in products.values() if product.kind == "eval")
    return {
        "averages": averages,
        "parents": sorted({products[path].owner for path in given} - {run, "data"}),
        "graph": lineage_drawing.draw(products, models, run),
        "stages": stages,
        "curves": curves.charts(stages),
        "corpora": curves.corpora(stages),
        "packed": products[packed] if packed else None,
        "rows": [product for product in products.values() if "rows" in product.content],
        "facts": facts(stages, products.values()),
    }


def with_averages(models: list[str], averages: list[Product]) -> list[str]:
    """The models in order, each followed by the averages of its checkpoints."""
    return [
        path
        for model in models
        for path in (model, *(one.path for one in averages if model in one.inputs))
    ]


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
    environment.globals |= {"repeats": REPEATS, "risen": caveats.RISEN}
    environment.filters |= {"short": short, "duration": duration, "percent": percent}
    return environment.get_template("page.html.jinja")


def mixtures(
    blends: list[str], products: Products, stages: list[Stage], gaps: dict[str, list]
) -> list[tuple[Stage, list[Row], list]]:
    """The phases of pretraining, with corpora and gaps of each; `stages` begin with them."""
    pairs = zip(blends, stages, strict=False)
    return [
        (stage, mixed(products[path], products, stage), gaps.get(stage.name, []))
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
