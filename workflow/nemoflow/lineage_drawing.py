"""The drawing of what led to a run's scores: a row per checkpoint, a column per sort of product."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow.drawing import short
from nemoflow.products import Product

TITLES = ("sources", "data", "checkpoint", "export", "scores")
COLUMNS = {
    "tokens": 0, "rendered": 0, "blend": 1, "packed": 1, "prompts": 1,
    "init": 2, "pretrain": 2, "sft": 2, "rl": 2, "export": 3, "scores": 4, "eval": 4,
}  # fmt: skip
CHECKPOINT = 2
KINDS = ("blend", "packed", "prompts", "pretrain", "rl")  # that a column has beside others
BOX, GUTTER, GAP, HEADER = (142, 40), 36, 26, 26  # SVG units; GAP between rows


def measure(content: dict[str, Any]) -> tuple[float, str]:
    """How much of it there is, and of what; (0, "") where the content does not say."""
    if "shards" in content:
        trained = [shard["tokens"] for shard in content["shards"] if shard["split"] == "train"]
        return sum(trained), " tokens"
    match content.get("train"):
        case list(blended):
            return len(blended) // 2, " shards"
        case dict(packed):
            return packed["rows"], " rows"
        case int(rows):
            return rows, " rows"
    if "model" in content:
        return content["model"]["parameters"], " parameters"
    if "steps" in content:
        return len(content["steps"]), " checkpoints"
    for key, unit in (("step", " steps"), ("tokens", " tokens"), ("size", " bytes")):
        if key in content:
            return content[key], unit
    return 0, ""


@dataclass
class Node:
    """A box: one product, or some of a kind that go the same way."""

    members: list[Product]
    state: str  # built, shared (a parent run's) or missing
    x: float = 0.0
    y: float = 0.0

    @property
    def column(self) -> int:
        """Its place from left to right."""
        return COLUMNS[self.members[0].kind]

    @property
    def title(self) -> str:
        """What it is called in its column."""
        path, kind = Path(self.members[0].path), self.members[0].kind
        if kind in ("tokens", "rendered") and len(self.members) > 1:
            return f"{len(self.members)} {'corpora' if kind == 'tokens' else 'sources'}"
        if kind == "init":
            return "imported"
        if self.members[0].rule == "merge":
            return f"merged {path.stem}"
        named_by_folder = kind == "scores" or path.stem in ("blend", "checkpoint")
        return path.parent.name if named_by_folder else path.stem

    @property
    def away(self) -> bool:
        """Whether bytes of it are elsewhere."""
        return any(member.away for member in self.members)

    @property
    def facts(self) -> str:
        """Its kind where the column has several, and how much of it there is."""
        first = self.members[0]
        if self.state == "missing":
            return "missing"
        amounts = [measure(member.content) for member in self.members]
        total, unit = sum(amount for amount, _ in amounts), amounts[0][1]
        told = [first.kind] if first.kind in KINDS and first.rule != "merge" else []
        if first.kind == "scores":
            told.append(f"{len(self.members)} task{'s' if len(self.members) > 1 else ''}")
        elif total:
            told.append(f"{short(total)}{unit}")
        return ", ".join(told)

    def at(self, across: float, down: float) -> tuple[float, float]:
        """A point of the box; 0, 0 is its upper left corner and 1, 1 the lower right one."""
        return self.x + across * BOX[0], self.y + down * BOX[1]


@dataclass(frozen=True)
class Graph:
    """The drawing: a row per checkpoint, a column per sort of product; `edges` are SVG paths."""

    width: float
    height: float
    columns: list[tuple[float, str]]
    nodes: list[Node]
    edges: list[str]
    box: tuple[int, int] = BOX


def draw(products: dict[str, Product], checkpoints: list[str], run: str) -> Graph:
    """Lay out what led to the scores of `run`; `checkpoints` in the order of training.

    Left out: tokenizers, plans and parts, and prompts that are only evaluated on.
    """
    rows = rows_of(products, checkpoints)
    nodes = fold(products, rows, run)
    bottom = place(nodes, rows)
    node_of = {member.path: node for node in nodes for member in node.members}
    joined = {
        (id(node_of[path]), id(node)): (node_of[path], node)
        for node in nodes
        for member in node.members
        for path in member.inputs
        if path in node_of and drawn(node_of[path], node)
    }
    columns = [(column_x(number) + BOX[0] / 2, title) for number, title in enumerate(TITLES)]
    width = column_x(len(TITLES)) - GUTTER + 16
    edges = [route(*ends, between(nodes, *ends)) for ends in joined.values()]
    return Graph(width, bottom, columns, nodes, edges)


def rows_of(products: dict[str, Product], checkpoints: list[str]) -> dict[str, int]:
    """The row of each product: of the first checkpoint it leads to, or the last it comes from."""
    users = defaultdict(list)
    for product in products.values():
        for path in product.inputs:
            users[path].append(product.path)
    rows = {path: row for row, path in enumerate(checkpoints)}
    for column in (1, 0, 3, 4):
        for path, product in products.items():
            if COLUMNS.get(product.kind) == column and ".parts/" not in path:
                near = users[path] if column < CHECKPOINT else product.inputs
                if known := [rows[other] for other in near if other in rows]:
                    nearest = min(known) if column < CHECKPOINT else max(known)
                    rows[path] = len(checkpoints) if product.kind == "eval" else nearest
    return rows


def fold(products: dict[str, Product], rows: dict[str, int], run: str) -> list[Node]:
    """Boxes: corpora, and rendered sources, by what they go into; the tasks of a model as one."""
    groups: dict[tuple, list[Product]] = defaultdict(list)
    for path in sorted(rows):
        product = products[path]
        key: tuple = (path,)
        if product.kind in ("tokens", "rendered"):
            key = tuple(p for p in sorted(rows) if path in products[p].inputs)
        elif product.kind == "scores":
            key = (product.owner, Path(path).parent.name)
        groups[(product.kind, *key)].append(product)
    return [Node(members, state(members, run)) for members in groups.values()]


def state(members: list[Product], run: str) -> str:
    """What is to be said about products that lie together."""
    if not all(member.content for member in members):
        return "missing"
    return "built" if members[0].owner in (run, "data") else "shared"


def column_x(column: int) -> float:
    """The left edge of a column."""
    return 1 + column * (BOX[0] + GUTTER)


def place(nodes: list[Node], rows: dict[str, int]) -> float:
    """Give every box its place, several in one cell below each other; the height of it all."""
    cells: dict[int, dict[int, list[Node]]] = defaultdict(lambda: defaultdict(list))
    for node in nodes:
        cells[min(rows[member.path] for member in node.members)][node.column].append(node)
    top = float(HEADER)
    for row in sorted(cells):
        for column, stack in cells[row].items():
            for number, node in enumerate(stack):
                node.x, node.y = column_x(column), top + number * (BOX[1] + 8)
        top += max(map(len, cells[row].values())) * (BOX[1] + 8) - 8 + GAP
    return top - GAP + 2


def drawn(start: Node, end: Node) -> bool:
    """Whether an edge is shown: between neighbours, and to eval.json from scores alone."""
    if end.members[0].kind == "eval":
        return start.members[0].kind == "scores"
    return abs(end.column - start.column) <= 1


def between(nodes: list[Node], start: Node, end: Node) -> bool:
    """Whether another box stands between two of a column."""
    column = [node for node in nodes if node.column == start.column == end.column]
    return any(start.y < node.y < end.y for node in column)


def route(start: Node, end: Node, around: bool = False) -> str:
    """The SVG path of an edge, between the boxes; `around` those that stand in its way."""
    (right, middle), (left, target) = start.at(1, 0.5), end.at(0, 0.5)
    if end.column == start.column == CHECKPOINT:
        x, bottom = start.at(0.5, 1)
        if around:
            x = start.x + 20
            return f"M{x} {bottom}v{GAP / 4}H{start.x - 9}V{end.y - GAP / 2}H{x}V{end.y}"
        return f"M{x} {bottom}V{end.y}"
    if end.column == start.column:
        return f"M{right} {middle}h12V{target}h-12"
    if end.column > start.column:
        return f"M{right} {middle}h{GUTTER / 2}V{target}H{left}"
    return f"M{start.x + 20} {start.y + BOX[1]}V{end.y - GAP / 2}H{end.at(1, 0)[0] - 20}V{end.y}"
