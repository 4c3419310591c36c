"""Names for the rules that look for items of evaluations in training data."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from nemoflow.config import derived
from nemoflow.config.items import unchecked
from nemoflow.config.messages import nearest
from nemoflow.errors import UserError
from nemoflow.holders import Holders

KINDS = ("tokens", "packed", "prompts")


class Product(NamedTuple):
    """What a stage trains on: the stage, the kind of product, its name."""

    stage: str
    kind: str
    data: str


class Checked(Holders):
    """What is looked through, for which tasks, and which run holds the result."""

    def checked_tasks(self, wildcards: Any) -> list[str]:
        """The tasks of a run whose items can be looked for."""
        tasks = self.run(wildcards).eval.tasks
        without = unchecked(self.config, tasks)
        if not (found := [task for task in tasks if task not in without]):
            raise UserError(
                f"{wildcards.run}: no task of eval.tasks says where its items lie (items)"
            )
        return found

    def checked_kinds(self, wildcards: Any) -> list[str]:
        """The kind of each product that a run's eval.contamination asks for."""
        return [product.kind for product in self._asked(wildcards)]

    def checked_data(self, wildcards: Any) -> list[str]:
        """The name of each, in the same order."""
        return [product.data for product in self._asked(wildcards)]

    def checkers(self, wildcards: Any) -> list[str]:
        """The run that holds the result of each: the stage's, unless it has other tasks."""
        return [self._checker(wildcards, product.stage) for product in self._asked(wildcards)]

    def checked_corpus(self, wildcards: Any) -> str | list:
        """The corpus that {kind} and {data} name."""
        return self._named(wildcards, "tokens")

    def checked_mixture(self, wildcards: Any) -> str | list:
        """The mixture that they name."""
        return self._named(wildcards, "packed")

    def checked_prompts(self, wildcards: Any) -> str | list:
        """The prompts that they name."""
        return self._named(wildcards, "prompts")

    def decoder(self, wildcards: Any) -> str | list:
        """The tokenizer of its tokens; prompts are text."""
        if wildcards.kind == "packed":
            return self.config.data("mixtures", wildcards.data).tokenizer
        return self.run(wildcards).pretrain.tokenizer if wildcards.kind == "tokens" else []

    def _asked(self, wildcards: Any) -> list[Product]:
        sections = self.run(wildcards).eval.contamination or []
        found = self._trained_on(wildcards)
        return [product for product in found if product.stage.partition(".")[0] in sections]

    def _trained_on(self, wildcards: Any) -> list[Product]:
        """The products that a run's stages train on, each once, for the first of them."""
        found: dict[tuple[str, str], Product] = {}
        for product in self._of_stages(wildcards):
            found.setdefault(product[1:], product)
        return list(found.values())

    def _of_stages(self, wildcards: Any) -> Iterator[Product]:
        run = self.run(wildcards)
        for phase in run.pretrain.phases:
            if self.has(wildcards, stage := f"pretrain.{phase}"):
                weights = derived.weights(self.config, run, phase)
                yield from (
                    Product(stage, "tokens", corpus) for corpus in weights if weights[corpus]
                )
        if self.has(wildcards, "sft"):
            yield Product("sft", "packed", run.sft.mixture)
        for step, entry in run.rl.steps.items():
            if self.has(wildcards, stage := f"rl.{step}"):
                yield Product(stage, "prompts", entry.prompts)

    def _named(self, wildcards: Any, kind: str) -> str | list:
        if wildcards.kind != kind:
            return []
        known = [product.data for product in self._trained_on(wildcards) if product.kind == kind]
        if wildcards.data not in known:
            which = nearest(f"{kind} of {wildcards.run}", wildcards.data, known)
            raise UserError(f"{wildcards.run} does not train on that: {which}")
        return wildcards.data

    def _checker(self, wildcards: Any, stage: str) -> str:
        owner, ours = self.owner(wildcards, stage), self.run(wildcards).eval.tasks
        theirs = ours if owner == wildcards.run else self.config.unchanged(owner).eval.tasks
        return owner if theirs == ours else wildcards.run
