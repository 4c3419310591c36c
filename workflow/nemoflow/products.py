"""What is known of a product from its manifest and the record of its build."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nemoflow.manifest import PARTS, payload
from nemoflow.provenance import BUILDS
from nemoflow.revision import Tree, WorkingTree

# Where the rules put what they make; a test compares it with rules/.
PATHS = {
    "image": "results/images/{image}.json",
    "tokenizer": "results/data/tokenizers/{tokenizer}.json",
    "plan": "results/data/plans/{corpus}.json",
    "corpus": "results/data/tokens/{tokenizer}/{corpus}.json",
    "import_model": "results/{run}/init.json",
    "blend": "results/{run}/pretrain/{phase}/blend.json",
    "pretrain": "results/{run}/pretrain/{phase}/checkpoint.json",
    "merge": "results/{run}/pretrain/{phase}/merged/{window}.json",
    "render": "results/data/rendered/{mixture}/{source}.json",
    "pack": "results/data/packed/{mixture}.json",
    "sft": "results/{run}/sft/checkpoint.json",
    "resolve": "results/data/prompts/{prompts}.json",
    "rl": "results/{run}/rl/{step}/checkpoint.json",
    "export": "results/{run}/export/{stage}.json",
    "eval_task": "results/{run}/eval/{stage}/{task}.json",
    "eval": "results/{run}/eval.json",
    "eval_items": "results/data/items/{task}.json",
    "overlap": "results/{run}/contamination/{kind}/{data}.json",
    "contamination": "results/{run}/contamination.json",
}
EXPRESSIONS = {
    rule: re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(place)))
    for rule, place in PATHS.items()
}


def job_of(path: str) -> tuple[str, dict[str, str]]:
    """The rule that makes a product, and its wildcards; ("", {}) where no rule is known."""
    for rule, expression in EXPRESSIONS.items():
        if found := expression.fullmatch(path):
            return rule, found.groupdict()
    return "", {}


@dataclass(frozen=True)
class Product:
    """A declared file: its content and the record of its build, each empty where absent.

    `sha256` is that of the file, None where there is none; `foreign` is a record of another build
    than the file's, which tells nothing of it.
    """

    path: str
    content: dict[str, Any]
    record: dict[str, Any]
    sha256: str | None = None
    foreign: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, path: str, tree: Tree | None = None) -> "Product":
        """What is known of the product at `path`, here or in another tree.

        Raises:
            UserError: the file, or the record, is not JSON.
        """
        tree = tree or WorkingTree()
        file, record = tree.content(path), tree.json(f"{BUILDS}/{path}.json")
        sha256 = None if file is None else hashlib.sha256(file).hexdigest()
        content = tree.json(path) if path.endswith(".json") else {}
        if sha256 is not None and record.get("sha256", sha256) != sha256:
            return cls(path, content, {}, sha256, record)
        return cls(path, content, record, sha256)

    @property
    def known(self) -> bool:
        """Whether there is such a product, or was."""
        return self.sha256 is not None or bool(self.record)

    @cached_property
    def inputs(self) -> dict[str, str | None]:
        """What it was made from, with the digests recorded then; None where none was.

        Of eval.json and blend.json only the record tells. The temporary parts of a corpus stand for
        its plan and tokenizer.
        """
        told = {**self.content.get("inputs", {}), **self.record.get("inputs", {})}
        found = {
            path: sha256
            for path, sha256 in told.items()
            if path.startswith("results/") and PARTS not in path
        }
        if self.rule == "corpus":
            _, named = job_of(self.path)
            for rule in ("plan", "tokenizer"):
                found.setdefault(PATHS[rule].format(**named), None)
        return dict(sorted(found.items()))

    @property
    def identity(self) -> dict[str, Any] | None:
        """The config that it was built from; None where nothing here tells."""
        return self.content.get("identity") or self.record.get("identity")

    @property
    def built(self) -> dict[str, Any]:
        """When, where, with what and how long; see `provenance.record_build`."""
        return self.record.get("built", {})

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours, over all attempts."""
        return self.built.get("gpus", 0) * self.built.get("seconds", 0) / 3600

    @property
    def commit(self) -> str:
        """The commit that it was built from in eight digits, with `+` where files differed."""
        name = self.built.get("commit", "")
        return name.rstrip("+")[:8] + "+" * name.endswith("+")

    @property
    def digest(self) -> str:
        """The md5 of its bytes as DVC has it, or the sha256 of the file where it has no bytes."""
        return self.content.get("md5", self.sha256 or "").removesuffix(".dir")

    @property
    def away(self) -> bool:
        """Whether it has bytes, and they are not here."""
        return "md5" in self.content and not payload(self.path).exists()

    @property
    def rule(self) -> str:
        """The rule that made it."""
        return job_of(self.path)[0]

    @property
    def owner(self) -> str:
        """The run that holds it; `data` for what runs share."""
        return Path(self.path).parts[1]

    @property
    def kind(self) -> str:
        """What sort of product it is: `scores`, its folder's name, or its own in a run's folder."""
        path = Path(self.path)
        if path.parts[2] == "parity":
            return "parity"
        if path.stem in ("blend", "contamination", "eval", "init"):
            return path.stem
        return "scores" if path.parts[2] == "eval" else path.parts[2]

    @property
    def has_manifest(self) -> bool:
        """Whether its file is a manifest; others hold what their readers want."""
        other = ("blend", "contamination", "eval", "parity")
        return self.path.endswith(".json") and self.kind not in other

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The source files it was made from, as [{path, bytes, digest}].

        Of what was fetched or imported, [{path}] with the place that the config names, at the
        commit that was fetched.
        """
        if found := self.content.get("files" if self.rule == "plan" else "source_files"):
            return found
        told = self.identity or {}
        if place := told.get("import") or told.get("hub"):
            revision = self.content.get("pinned", told).get("revision") or ""
            return [{"path": f"{place} {revision}".strip()}]
        return []


def trace(paths: Iterable[str], tree: Tree | None = None) -> dict[str, Product]:
    """The products at `paths` and, as far as is known, all that they were made from, by path."""
    found: dict[str, Product] = {}
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = Product.at(path, tree)
            waiting += found[path].inputs
    return found


def scores_behind(paths: Iterable[str]) -> set[str]:
    """The scores of single tasks that lead to some products."""
    return {path for path, product in trace(paths).items() if product.kind == "scores"}
