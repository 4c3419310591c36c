"""Two runs, or two revisions, side by side: changed keys beside changed scores."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nemoflow.alignment import Alignment, Change, Products, align
from nemoflow.errors import UserError
from nemoflow.files import canonical
from nemoflow.keys import shown
from nemoflow.lineage import doubts
from nemoflow.products import job_of, trace
from nemoflow.revision import Revision, Tree, WorkingTree, nearest, resolved
from nemoflow.score_pairs import NOTE, Score, paired, table

ENTRY = re.compile(r"(pretrain\.phases|rl\.steps|corpora|tasks|prompts)\.([^.]+)\.(.+)")


@dataclass(frozen=True)
class Side:
    """A run in the working tree or in a revision."""

    run: str
    tree: Tree

    @property
    def eval(self) -> str:
        """Its scores."""
        return f"results/{self.run}/eval.json"

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.run} in {self.tree.name}"


@dataclass(frozen=True)
class Comparison:
    """Two sides, how their lineages differ, and their scores."""

    a: Side
    b: Side
    alignment: Alignment
    doubts: list[str]
    scores: list[Score]


def compare(a: str, b: str) -> list[Comparison]:
    """Compare two sides, each a run, a revision of git, or REVISION:RUN.

    Two revisions are compared in every run that has an eval.json in both.

    Raises:
        UserError: a name is no run and no revision; or two revisions share no run.
    """
    (run_a, tree_a), (run_b, tree_b) = named(a), named(b)
    if run_a or run_b:
        runs = [(run_a or run_b, run_b or run_a)]
    else:
        runs = [(run, run) for run in tree_a.runs() if run in tree_b.runs()]
        if not runs:
            raise UserError(f"{a} and {b} have no run with results/RUN/eval.json in both")
    return [compare_sides(side(run_a, tree_a), side(run_b, tree_b)) for run_a, run_b in runs]


def named(text: str) -> tuple[str | None, Tree]:
    """The run (None for all) and the tree that a side names.

    Raises:
        UserError: it names neither a run nor a revision.
    """
    revision, colon, run = text.rpartition(":")
    here = WorkingTree()
    if colon:
        return run, Revision(revision)
    if text in here.runs():
        return text, here
    if not resolved(text) and (
        Path(f"results/{text}").is_dir() or Path(f"config/{text}.yaml").exists()
    ):
        raise UserError(
            f"{text}: the run has no results/{text}/eval.json here: build it, or name a revision"
            f" that has it (REVISION:{text})"
        )
    try:
        return None, Revision(text)
    except UserError as error:
        raise UserError(
            f"{text}: no run with results/{text}/eval.json{nearest(text, here.runs())}, and no"
            f" revision; runs: {', '.join(here.runs()) or 'none'}\n{error}"
        ) from None


def side(run: str, tree: Tree) -> Side:
    """A run of a tree.

    Raises:
        UserError: it has no scores there; names the nearest run that has.
    """
    if run not in tree.runs():
        raise UserError(
            f"{run}: {tree.name} has no results/{run}/eval.json{nearest(run, tree.runs())};"
            f" runs: {', '.join(tree.runs()) or 'none'}"
        )
    return Side(run, tree)


def compare_sides(a: Side, b: Side) -> Comparison:
    """Compare the lineages and the scores of two runs."""
    ours, theirs = trace([a.eval], a.tree), trace([b.eval], b.tree)
    before, after = (
        tree.json(path)["stages"] for tree, path in ((a.tree, a.eval), (b.tree, b.eval))
    )
    tasks = {
        (named["stage"], named["task"]): product.identity or {}
        for path, product in (ours | theirs).items()
        for rule, named in [job_of(path)]
        if rule == "eval_task"
    }
    alignment = align(ours, theirs, a.eval, b.eval)
    return Comparison(a, b, alignment, not_sure(ours, theirs), paired(before, after, tasks))


def not_sure(ours: Products, theirs: Products) -> list[str]:
    """Where the lineage that is here need not be the one that led to the scores."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, products in (("A", ours), ("B", theirs)):
        for path, product in products.items():
            told = doubts(product, products)
            if product.sha256 and product.identity is None:
                told.append("provenance/builds/ does not tell from which config it was built")
            for doubt in told:
                found[f"{path}: {doubt}"].append(name)
    return [f"{' and '.join(names)}: {doubt}" for doubt, names in found.items()]


def lines(comparisons: list[Comparison]) -> Iterator[str]:
    """The comparisons as text."""
    for number, found in enumerate(comparisons):
        if number:
            yield ""
        yield f"A  {found.a.name}"
        yield f"B  {found.b.name}"
        yield ""
        yield from differences(found.alignment)
        if found.doubts:
            yield ""
            yield "not sure: what is here is not all, or not just, what led to the scores"
            yield from (f"  {doubt}" for doubt in found.doubts)
        yield ""
        yield from table(found.scores)
        yield NOTE


def differences(found: Alignment) -> Iterator[str]:
    """How two lineages differ, as text."""
    if found.changes:
        yield "changed keys, A → B"
        yield from (f"  {line}" for line in folded(found.changes))
    for name, paths in zip("AB", found.alone, strict=True):
        if paths:
            yield f"made from in {name} alone"
            yield from (f"  {path}" for path in paths)
    if found.rebuilt:
        yield "same config, other bytes" + ("" if found.changes else ": rebuilt")
        for path, why in found.rebuilt.items():
            yield f"  {path}" + (f": {why}" if why else "")
    if found.follow:
        models = [path for path in found.follow if job_of(path)[0] not in ("eval_task", "eval")]
        scores = len(found.follow) - len(models)
        yield "same config, other inputs: what follows from these"
        yield from (f"  {path}" for path in models)
        if scores:
            yield f"  scores ({scores})"
    if not (found.changes or any(found.alone) or found.rebuilt or found.follow):
        yield "no key and no product differs"


def folded(changes: list[Change]) -> Iterator[str]:
    """Changes as lines; one that several phases, steps or data sets share is one line."""
    groups: dict[tuple, list[str]] = defaultdict(list)
    for change in changes:
        values = canonical([change.before, change.after])
        entry = ENTRY.fullmatch(change.key)
        place = (entry[1], entry[3]) if entry else (change.key, "")
        groups[*place, values].append(entry[2] if entry else "")
    for (first, rest, values), names in groups.items():
        name = names[0] if len(names) == 1 else "{" + ",".join(names) + "}"
        before, after = map(shown, json.loads(values))
        if before == after:
            before, after = "one text", "another that begins like it"
        yield f"{'.'.join((first, name, rest)) if rest else first}: {before} → {after}"


def document(comparisons: list[Comparison]) -> list[str]:
    """The comparisons as one JSON document."""
    told = [
        {
            "a": {"run": found.a.run, "tree": found.a.tree.name},
            "b": {"run": found.b.run, "tree": found.b.tree.name},
            "changes": [asdict(change) for change in found.alignment.changes],
            "only_a": found.alignment.alone[0],
            "only_b": found.alignment.alone[1],
            "rebuilt": found.alignment.rebuilt,
            "follow": found.alignment.follow,
            "doubts": found.doubts,
            "scores": [score.told() for score in found.scores],
        }
        for found in comparisons
    ]
    return [json.dumps({"comparisons": told}, indent=1, ensure_ascii=False)]
