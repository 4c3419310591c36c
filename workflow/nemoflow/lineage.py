"""A product's lineage as text or JSON: back to source files, with who built each step of it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemoflow.drawing import duration
from nemoflow.errors import UserError
from nemoflow.files import canonical
from nemoflow.products import Product, trace
from nemoflow.progress import in_bytes
from nemoflow.revision import Tree, nearest

HEADER = ("product", "digest", "built", "host", "commit", "time", "GPU hours")
SHORT = 8  # digits of a digest
MOST_FILES = 8  # source files of one product that are listed; the rest are counted
Cells = list[str]
Products = dict[str, Product]


def lines(targets: list[str], tree: Tree) -> Iterator[str]:
    """The tree from each target back, one product a line, each drawn once; versions; totals.

    Raises:
        UserError: there is no such product.
    """
    asked = [product_named(target, tree) for target in targets]
    products = trace(asked, tree)
    drawn: set[str] = set()
    rows = [list(HEADER)]
    for path in asked:
        rows += branch(path, products, drawn, "", "")
    widths = [max(len(row[i]) for row in rows if len(row) > i + 1) for i in range(len(HEADER) - 1)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells[: len(row) - 1], row[-1]]).rstrip()
    yield ""
    yield from versions(products)
    yield totals_line(products)


def document(targets: list[str], tree: Tree) -> list[str]:
    """The same as one JSON document."""
    asked = [product_named(target, tree) for target in targets]
    products = trace(asked, tree)
    told = {path: entry(product, products) for path, product in sorted(products.items())}
    content = {"tree": tree.name, "targets": asked, "products": told, "totals": totals(products)}
    return [json.dumps(content, indent=1, ensure_ascii=False)]


def product_named(target: str, tree: Tree) -> str:
    """The path of the declared file that a target names; its folder and its pointer do so too.

    Raises:
        UserError: there is none; names the nearest.
    """
    path = Path(target)
    if path.name == "curve.csv":
        path = path.with_name("checkpoint.json")
    beside = path.with_name(f"{path.name.removesuffix('.dvc')}.json")
    for name in (path.as_posix(), beside.as_posix()):
        if name.startswith("results/") and Product.at(name, tree).known:
            return name
    raise UserError(
        f"{target}: there is no such product in {tree.name}"
        f"{nearest(target, tree.products(), 3)}; name its manifest,"
        " e.g. results/super3-tiny/eval.json"
    )


def branch(path: str, products: Products, drawn: set[str], first: str, rest: str) -> list[Cells]:
    """The rows of a product and all below it; `first` and `rest` are drawn before them."""
    if path in drawn:
        return [[f"{first}{path}", "(above)"]]
    drawn.add(path)
    product = products[path]
    rows = [[f"{first}{path}", *facts(product)]]
    below = [lambda f, r, path=made: branch(path, products, drawn, f, r) for made in product.inputs]
    if product.sources:
        below.append(lambda f, r: source_rows(product.sources, f, r))
    bar = "│ " if below else "  "
    rows += [[f"{rest}{bar}! {doubt}"] for doubt in doubts(product, products)]
    for number, draw in enumerate(below, start=1):
        last = number == len(below)
        rows += draw(rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
    return rows


def source_rows(sources: list[dict[str, Any]], first: str, rest: str) -> list[Cells]:
    """The rows of source files; what is over `MOST_FILES` is counted."""
    listed = sources if len(sources) <= MOST_FILES else sources[: MOST_FILES - 1]
    rows = []
    for source in listed:
        size = f" ({in_bytes(source['bytes'])})" if "bytes" in source else ""
        digest = source.get("digest") or source.get("sha256") or ""
        shown = digest.rpartition(":")[2][:SHORT] or "not recorded"
        rows.append([f"{first if not rows else rest}source {source['path']}{size}", shown, ""])
    if left := sources[len(listed) :]:
        size = sum(source.get("bytes", 0) for source in left)
        rows.append([f"{rest}and {len(left):,} more source files ({in_bytes(size)})", "", ""])
    return rows


def facts(product: Product) -> Cells:
    """The columns beside a product's path."""
    if product.sha256 is None:
        return ["missing", ""]
    built = product.built
    if not built:
        return [product.digest[:SHORT], "not recorded", ""]
    return [
        product.digest[:SHORT],
        built["started"][:16].replace("T", " "),
        built["host"],
        product.commit,
        duration(built["seconds"]) + resumed(built),
        f"{product.gpu_hours:.2f}" if "gpus" in built else "–",
    ]


def resumed(built: dict[str, Any]) -> str:
    """How often a training job was started, where that is more than once."""
    attempts = built.get("attempts", 1)
    return f" in {attempts} attempts" if attempts > 1 else ""


def doubts(product: Product, products: Products) -> list[str]:
    """Where the record of how a product came to be does not hold."""
    found = []
    if product.sha256 is None:
        found.append("missing")
    if product.foreign:
        found.append("provenance/builds/ tells of another build than this file's")
    for path, recorded in product.inputs.items():
        now = products[path].sha256
        if recorded and now and recorded != now:
            found.append(f"was built from another {path} ({recorded[:SHORT]}, not {now[:SHORT]})")
    return found


def versions(products: Products) -> Iterator[str]:
    """The versions that most products were built with, and the products built with others."""
    told = {path: p.built["versions"] for path, p in sorted(products.items()) if p.built}
    if not told:
        yield "no record of who built these products (provenance/builds/)"
        return
    texts = {path: canonical(found) for path, found in told.items()}
    ((most, _),) = Counter(texts.values()).most_common(1)
    usual = json.loads(most)
    yield "versions: " + ", ".join(f"{name} {version}" for name, version in usual.items())
    for path, found in told.items():
        if texts[path] != most:
            other = [
                f"{name} {found.get(name, 'absent')}"
                for name in sorted(usual | found)
                if usual.get(name) != found.get(name)
            ]
            yield f"  but {path}: {', '.join(other)}"


def totals(products: Products) -> dict[str, Any]:
    """Counts, seconds and GPU hours of all products of a lineage."""
    built = [product for product in products.values() if product.built]
    return {
        "products": len(products),
        "recorded": len(built),
        "missing": sum(product.sha256 is None for product in products.values()),
        "seconds": round(sum(product.built["seconds"] for product in built), 1),
        "gpu_hours": round(sum(product.gpu_hours for product in built), 3),
    }


def totals_line(products: Products) -> str:
    """The totals in words."""
    told = totals(products)
    unknown = told["products"] - told["recorded"]
    return (
        f"total: {told['products']} products, {duration(told['seconds'])},"
        f" {told['gpu_hours']:.2f} GPU hours"
        + (f"; without {unknown} whose builds are not recorded" if unknown else "")
        + (f"; {told['missing']} missing" if told["missing"] else "")
    )


def entry(product: Product, products: Products) -> dict[str, Any]:
    """A product in the JSON document."""
    return {
        "digest": product.digest or None,
        "sha256": product.sha256,
        "inputs": product.inputs,
        "sources": product.sources,
        "built": product.built or None,
        "gpu_hours": round(product.gpu_hours, 3),
        "doubts": doubts(product, products),
    }
