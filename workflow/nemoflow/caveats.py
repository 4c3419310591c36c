"""What a reader of a run's report must know before believing it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from nemoflow.curves import Stage
from nemoflow.drawing import short
from nemoflow.mixture_table import REPEATS, Row, percent
from nemoflow.products import Product
from nemoflow.score_pairs import is_lower_better
from nemoflow.scores import Ladder

DROPPED = 0.01  # share of a product's rows above which dropping them is told
RISEN = 0.005  # of the validation loss: an average above that is worse than the last checkpoint
NAMED = 3  # names in a sentence; more are counted


@dataclass(frozen=True)
class Caveat:
    """One of them: `wrong` where something failed, else to be known; `place` is its section."""

    text: str
    place: str
    wrong: bool = False


def gather(
    page: dict[str, Any], products: dict[str, Product], config: dict[str, Any]
) -> list[Caveat]:
    """What a reader must know, what failed first."""
    found = chain(
        of_scores(page["ladder"]),
        of_conversions(page["parity"]),
        of_averages(page["averages"]),
        of_contamination(page["contamination"]),
        of_products(products.values()),
        of_mixtures(page["mixtures"]),
        of_origin(page["origin"]),
        of_gaps(config.get("gaps", {}), page["gaps"]),
    )
    return sorted(found, key=lambda caveat: not caveat.wrong)


def checks(page: dict[str, Any]) -> list[tuple[str, bool]]:
    """What was checked of the run, in a few words, and whether all of it passed."""
    found = []
    published = [verdict for ladder in page["ladder"] for verdict in ladder.verdicts]
    converted = [told["verdict"] for told in page["parity"].values()]
    for verdicts, what in ((published, "published score"), (converted, "conversion")):
        if verdicts:
            passed = verdicts.count("passed")
            plural = "s" if len(verdicts) > 1 else ""
            text = f"{passed} of {len(verdicts)} {what}{plural} passed"
            found.append((text, passed == len(verdicts)))
    if page["contamination"]:
        tasks = page["contamination"]["tasks"].values()
        seen, items = (sum(told[key] for told in tasks) for key in ("found", "items"))
        found.append((f"{seen:,} of {items:,} evaluated items in training data", not seen))
    return found


def of_scores(ladders: Iterable[Ladder]) -> Iterator[Caveat]:
    """Scores that are not the published ones, and those that a stage loses."""
    for ladder in ladders:
        for stage, score in ladder.steps:
            if score.get("verdict") == "failed":
                told = f"{score['published']:.3f} ± {score['tolerance']:.3f}"
                yield Caveat(
                    f"{ladder.task} after {stage} is {score['value']:.3f}; published: {told}",
                    "scores", wrong=True,
                )  # fmt: skip
        for before, after in zip(ladder.steps, ladder.steps[1:], strict=False):
            (first, was), (then, now) = before, after
            worse = "rises" if is_lower_better(now["metric"], {}) else "falls"
            if Ladder(ladder.task, [before, after]).word == worse:
                yield Caveat(
                    f"{ladder.task} {worse} from {was['value']:.3f} after {first} to"
                    f" {now['value']:.3f} after {then}, by more than two standard errors",
                    "scores",
                )


def of_conversions(parity: dict[str, dict[str, Any]]) -> Iterator[Caveat]:
    """Exported and imported models that are not the trained ones, or that nobody compared."""
    for stage, told in parity.items():
        if told["verdict"] == "failed":
            yield Caveat(f"the conversion of {stage} failed", "conversions", wrong=True)
    skipped: dict[str, list[str]] = {}
    for stage, told in parity.items():
        if why := told.get("skipped") or told.get("logits", {}).get("skipped"):
            skipped.setdefault(why, []).append(stage)
    for why, stages in skipped.items():
        yield Caveat(f"logits of {named(stages)} were not compared: {why}", "conversions")


def of_averages(averages: Iterable[Product]) -> Iterator[Caveat]:
    """Averages of checkpoints that are worse than the last one."""
    for product in averages:
        loss = product.content.get("valid_loss")
        if loss and loss["merged"] > loss["last"] * (1 + RISEN):
            yield Caveat(
                f"the validation loss of average {Path(product.path).stem} is"
                f" {percent(loss['merged'] / loss['last'] - 1)} above the last checkpoint's",
                "averages", wrong=True,
            )  # fmt: skip


def of_contamination(found: dict[str, Any] | None) -> Iterator[Caveat]:
    """Evaluated items that training data hold; or that nobody has looked."""
    if found is None:
        yield Caveat("training data were not searched for evaluated items", "data")
        return
    if missed := list(found["unchecked"]):
        yield Caveat(
            f"training data were not searched for items of {named(missed)}", "contamination"
        )
    for task, told in found["tasks"].items():
        if told["found"]:
            yield Caveat(
                f"training data hold {told['found']:,} of the {told['items']:,} items of {task}",
                "contamination", wrong=True,
            )  # fmt: skip


def of_mixtures(mixtures: Iterable[tuple[Stage, list[Row], list]]) -> Iterator[Caveat]:
    """Corpora that a phase sees too often."""
    for stage, rows, _ in mixtures:
        if often := [row for row in rows if row.repeated]:
            told = named(f"{row.corpus} ({row.epochs:.1f}×)" for row in often)
            yield Caveat(f"{stage.name} sees corpora more than {REPEATS} times: {told}", "data")


def of_gaps(run: dict[str, str], stages: dict[str, list]) -> Iterator[Caveat]:
    """What the recipe has and nobody can get: `run` says it in words, `stages` by share."""
    for stage, gaps in stages.items():
        if lacking := [(name, share) for name, share, _ in gaps if share != 0]:
            known = [share for _, share in lacking if share is not None]
            amount = f"{percent(sum(known))} of its published mix" if known else "published data"
            yield Caveat(f"{stage} lacks {amount}: {named(n for n, _ in lacking)}", "data")
    for name, why in run.items():
        yield Caveat(f"gap {name}: {why}", "config")


def of_products(products: Iterable[Product]) -> Iterator[Caveat]:
    """Rows dropped, prompts in both splits, bytes and records that are not here, jobs resumed."""
    products = list(products)
    losing = {p.path: dropped(p) for p in products if dropped(p) > DROPPED}
    told = [f"{path} ({percent(share)})" for path, share in losing.items()]
    yield from listed(f"dropped more than {percent(DROPPED)} of its rows", told, "rows")
    twice = [f"{p.path} ({p.content['in_both']:,})" for p in products if p.content.get("in_both")]
    yield from listed("has prompts in both splits", twice, "rows")
    yield from listed("is missing", [p.path for p in products if not p.known], "products")
    away = [product.path for product in products if product.away]
    yield from listed("has its bytes elsewhere (dvc pull brings them)", away, "products")
    foreign = [product.path for product in products if product.foreign]
    yield from listed("is recorded as another build than what lies here", foreign, "provenance")
    resumed = [p for p in products if p.built.get("attempts", 1) > 1]
    told = [f"{p.path} ({p.built['attempts'] - 1}×)" for p in resumed]
    yield from listed("was resumed", told, "stages")


def dropped(product: Product) -> float:
    """The share of its rows that a product dropped."""
    rows = product.content.get("rows", {})
    return sum(rows["dropped"].values()) / rows["in"] if rows.get("in") else 0.0


def of_origin(origin: dict[str, Any]) -> Iterator[Caveat]:
    """Commits that do not tell what was run, and versions that were mixed."""
    commits: Counter[str] = origin["commits"]
    if changed := sum(jobs for commit, jobs in commits.items() if commit.endswith("+")):
        yield Caveat(f"{jobs_of(changed)} ran with uncommitted changes", "provenance")
    if unknown := commits["unknown"]:
        yield Caveat(f"{jobs_of(unknown)} ran outside of git: nobody knows with which code",
                     "provenance")  # fmt: skip
    if mixed := [name for name, found in origin["versions"].items() if len(found) > 1]:
        yield Caveat(f"jobs ran with different versions of {named(mixed)}", "provenance")


def jobs_of(count: int) -> str:
    """So many jobs."""
    return f"{short(count)} job{'s' if count > 1 else ''}"


def listed(what: str, names: list[str], place: str) -> Iterator[Caveat]:
    """One caveat for all that share it."""
    if len(names) == 1:
        yield Caveat(f"{names[0]} {what}", place)
    elif names:
        yield Caveat(f"{len(names)} products: each {what}: {named(names)}", place)


def named(names: Iterable[str]) -> str:
    """The first few, and how many more."""
    names = list(names)
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
