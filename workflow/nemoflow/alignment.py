"""Two lineages side by side: which products answer each other, and in what they differ.

Everything follows from what was built, as manifests and build records tell; no config file is read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nemoflow.config.checks import difference
from nemoflow.files import canonical
from nemoflow.keys import dotted, value_at
from nemoflow.products import Product, job_of
from nemoflow.specs import VERSIONS

Role = tuple[str, ...]
Products = dict[str, Product]

FREE = {"run", "tokenizer", "mixture", "prompts"}  # names that do not say what a product is for
# What a product takes from another, (its rule, the other's): the key that names the other.
LINKS = {
    ("corpus", "tokenizer"): "pretrain.tokenizer",
    ("export", "tokenizer"): "pretrain.tokenizer",
    ("render", "tokenizer"): "mixtures.{mixture}.tokenizer",
    ("pretrain", "pretrain"): "pretrain.phases.{phase}.after",
    ("sft", "pack"): "sft.mixture",
    ("sft", "pretrain"): "phase before sft",
    ("rl", "resolve"): "rl.steps.{step}.prompts",
    ("rl", "export"): "rl.steps.{step}.after",
    ("eval_task", "resolve"): "tasks.{task}.prompts",
    ("pretrain", "merge"): "pretrain.phases.{phase}.after",
    ("merge", "pretrain"): "pretrain.merge.phase",
    ("pretrain", "import_model"): "pretrain.phases.{phase}.after",
    ("sft", "import_model"): "phase before sft",
    ("export", "import_model"): "checkpoint exported as {stage}",
    **{
        ("export", rule): "checkpoint exported as {stage}"
        for rule in ("pretrain", "merge", "sft", "rl")
    },
}
ADAPTED = ("pretrain", "import_model")  # whose models an export's adapters may belong to
TELL_NOTHING = {"format", "spec", "identity", "inputs", "run"}  # of what a product holds


@dataclass(frozen=True)
class Change:
    """A key of the config and its values; None is unset."""

    key: str
    before: Any
    after: Any


@dataclass
class Alignment:
    """What differs between the lineages of two products, as far as it is known.

    `pairs` are the paths of products that answer each other, inputs first; `alone` are the
    products of either side that nothing of the other answers, without what only they are made
    from. Products of equal identity and other bytes are `rebuilt` if all their inputs are equal
    (why is beside each), else they `follow`.
    """

    ours: Products
    theirs: Products
    pairs: list[tuple[str, str]] = field(default_factory=list)
    alone: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    changes: list[Change] = field(default_factory=list)
    rebuilt: dict[str, str] = field(default_factory=dict)
    follow: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.our_roles, self.their_roles = by_role(self.ours), by_role(self.theirs)

    def pair(self, a: str, b: str) -> None:
        """Pair two products, and all that they were made from."""
        if (a, b) in self.seen:
            return
        self.seen.add((a, b))
        if self.ours[a].identity is None or self.theirs[b].identity is None:
            return  # nothing tells what one of them was made from
        ours, theirs = by_role(self.ours[a].inputs), by_role(self.theirs[b].inputs)
        for role in dict.fromkeys((*ours, *theirs)):
            if role in ours and role in theirs:
                self.pair(ours[role], theirs[role])
            elif role in ours:
                self.pair_alone(ours[role], self.their_roles.get(role), 0)
            else:
                self.pair_alone(theirs[role], self.our_roles.get(role), 1)
        self.pairs.append((a, b))

    def pair_alone(self, path: str, other: str | None, side: int) -> None:
        """Pair a product with one that the other side uses elsewhere, or say that there is none.

        Tokenizers, packed rows and prompts elsewhere are for something else.
        """
        if other is None or job_of(path)[0] in ("tokenizer", "pack", "render", "resolve"):
            if path not in self.alone[side]:
                self.alone[side].append(path)
        else:
            self.pair(*((path, other) if side == 0 else (other, path)))

    def judge(self) -> None:
        """Say of every pair what differs, in the order of the pipeline."""
        place = {rule: number for number, rule in enumerate(VERSIONS)}
        found: dict[str, Change] = {}
        for a, b in sorted(self.pairs, key=lambda pair: place.get(job_of(pair[1])[0], 0)):
            ours, theirs = self.ours[a], self.theirs[b]
            for change in (*key_changes(ours, theirs), *link_changes(ours, theirs)):
                found.setdefault(canonical([change.key, change.before, change.after]), change)
            if ours.identity and ours.identity == theirs.identity and not same(ours, theirs):
                self.judge_bytes(ours, theirs)
        self.changes = list(found.values())

    def judge_bytes(self, ours: Product, theirs: Product) -> None:
        """Say why two products of one identity differ: their inputs do, or they were rebuilt."""
        before, after = by_role(ours.inputs), by_role(theirs.inputs)
        if before.keys() == after.keys() and all(
            self.same_input(ours, theirs, before[role], after[role]) for role in before
        ):
            self.rebuilt[theirs.path] = why(ours, theirs)
        elif theirs.path not in self.follow:
            self.follow.append(theirs.path)

    def same_input(self, ours: Product, theirs: Product, a: str, b: str) -> bool:
        """Whether two products were made from the same `a` and `b`, as far as is known."""
        if ours.inputs[a] and ours.inputs[a] == theirs.inputs[b]:
            return True
        as_built = is_as_built(ours, self.ours[a]) and is_as_built(theirs, self.theirs[b])
        return as_built and same(self.ours[a], self.theirs[b])


def align(ours: Products, theirs: Products, a: str, b: str) -> Alignment:
    """The lineages of product `a` of ours and `b` of theirs, paired and judged."""
    alignment = Alignment(ours, theirs)
    alignment.pair(a, b)
    alignment.judge()
    return alignment


def role_of(path: str) -> Role:
    """What a product is for, whatever run holds it and whatever its data are called."""
    rule, named = job_of(path)
    if not rule:
        return ("", path.split("/", 2)[-1])
    return (rule, *(value for name, value in named.items() if name not in FREE))


def by_role(paths: Iterable[str]) -> dict[Role, str]:
    """Paths by what they are for."""
    return {role_of(path): path for path in paths}


def key_changes(ours: Product, theirs: Product) -> Iterator[Change]:
    """The keys in which the identities of two products differ."""
    before, after = ours.identity, theirs.identity
    if before is None or after is None:
        return
    rule, named = job_of(theirs.path)
    for key in difference(before, after):
        name = dotted(rule or theirs.path, named, key)
        yield Change(name, value_at(before, key), value_at(after, key))


def link_changes(ours: Product, theirs: Product) -> Iterator[Change]:
    """The names in which what two products are made from differs."""
    _, named = job_of(theirs.path)
    before, after = links(ours, named), links(theirs, named)
    for key in difference(before, after):
        yield Change(key[0], before.get(key[0]), after.get(key[0]))


def links(product: Product, named: dict[str, str]) -> dict[str, str]:
    """{key: name} of what a product is made from, where that has a name in the config."""
    found = {}
    for path in product.inputs:
        rule, names = job_of(path)
        key = LINKS.get((product.rule, rule))
        if product.rule == "export" and rule in ADAPTED and "lora" in (product.identity or {}):
            key = "model that {stage} adapts"
        if key:
            own = [value for name, value in names.items() if name != "run"]
            if product.rule == "export" and rule != "tokenizer":
                own = [".".join((rule, *own))]
            found[key.format(**named)] = own[-1] if own else "the imported model"
    return found


def is_as_built(product: Product, made_from: Product) -> bool:
    """Whether a product was made from another as that stands here, as far as is known."""
    return product.inputs[made_from.path] in (None, made_from.sha256)


def same(ours: Product, theirs: Product) -> bool:
    """Whether two products hold the same: the md5 of their bytes tells, or what they count."""
    if ours.sha256 is None or theirs.sha256 is None:
        return ours.sha256 == theirs.sha256
    if "md5" in ours.content or "md5" in theirs.content:
        return ours.content.get("md5") == theirs.content.get("md5")
    return held(ours) == held(theirs)


def held(product: Product) -> dict[str, Any]:
    """What a manifest without bytes says of its product alone."""
    return {key: value for key, value in product.content.items() if key not in TELL_NOTHING}


def why(ours: Product, theirs: Product) -> str:
    """What else is known to differ between two builds of one config."""
    found = []
    before, after = ({file["path"]: file for file in p.sources} for p in (ours, theirs))
    if changed := difference(before, after):
        files = sorted({key[0] for key in changed})
        found.append(f"source files differ ({len(files)}, {files[0]} first)")
    if ours.built and theirs.built:
        before, after = (
            {**p.built["versions"], "threads": p.built["threads"], "host": p.built["host"]}
            for p in (ours, theirs)
        )
        for (name,) in difference(before, after):
            found.append(f"{name} {before.get(name, 'absent')} → {after.get(name, 'absent')}")
    return ", ".join(found)
