"""What a phase is asked to train on, and what it will: the corpora of its blend in a table."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nemoflow import graph, manifest, specs
from nemoflow.blend import SPLITS, Shards, make_blend, shares
from nemoflow.columns import aligned
from nemoflow.config import Config, derived
from nemoflow.config.run import Run
from nemoflow.files import read_json
from nemoflow.forecast import count_of
from nemoflow.names import Names
from nemoflow.products import PATHS

# Text seen up to 4 times teaches almost like new text (Muennighoff et al., arXiv 2305.16264).
REPEATS = 4
HEAD = (
    "corpus", "weight", "asked", "drawn", "of documents", "documents", "tokens", "epochs", "valid",
    "test",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A corpus of a phase; what is not known, or not built, is None.

    `asked` is its share of all weights. Of what the phase draws, `drawn` is its share in tokens
    and `drawn_documents` in documents. `tokens` has the tokens of each split, `documents` those of
    training. `epochs` is how often the phase sees the corpus's most repeated shard.
    """

    corpus: str
    weight: float | None
    asked: float | None
    drawn: float | None
    drawn_documents: float | None
    documents: int | None
    tokens: dict[str, int] | None
    epochs: float | None

    @property
    def repeated(self) -> bool:
        """Whether the phase sees it too often."""
        return (self.epochs or 0) > REPEATS

    @property
    def absent(self) -> list[str]:
        """The splits that it is not in, though it is built and trained on."""
        return [s for s in SPLITS if self.drawn and self.tokens and not self.tokens[s]]


def budget(run: Run, phase: str) -> int:
    """The tokens that a phase trains on."""
    entry = run.pretrain.phases[phase]
    iterations = entry.stop_iteration - graph.first_iteration(run, phase)
    return iterations * entry.batch.global_size * entry.batch.sequence


class Mixture:
    """The corpora of a phase as they are asked for, and as its shards are drawn.

    `weights` are those asked for, by corpus, empty where nobody knows them any more; `corpora` the
    shards of those that are built; `train` a blend.json's list, without which the weights tell
    what will be drawn; `budget` the phase's tokens.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        corpora: Mapping[str, Shards],
        budget: float,
        train: list[str] | None = None,
    ):
        self.weights, self.corpora, self.budget = weights, corpora, budget
        self.drawn = by_shard(train) if train else expected(weights, corpora)
        self.share: dict[str, float] = defaultdict(float)
        for prefix, share in self.drawn.items():
            self.share[Path(prefix).parents[1].name] += share
        self.density = {corpus: self.documents_per_token(corpus) for corpus in corpora}

    def documents_per_token(self, corpus: str) -> float:
        """How many documents of a corpus come with each token that the phase draws."""
        return sum(
            self.drawn.get(shard["prefix"], 0) * documents_of(shard) / shard["tokens"]
            for shard in self.corpora[corpus]
            if shard["tokens"]
        )

    def rows(self) -> list[Row]:
        """The corpora, the largest share first."""
        names = {**self.share, **self.weights}
        size = {name: self.share.get(name) or self.weights.get(name, 0) for name in names}
        return [self.row(name) for name in sorted(names, key=lambda name: -size[name])]

    def row(self, corpus: str) -> Row:
        """One of them."""
        shards = self.corpora.get(corpus)
        weight, everything = self.weights.get(corpus), sum(self.weights.values())
        asked = weight / everything if weight is not None else None
        if shards is None:
            drawn = self.share.get(corpus)
            return Row(corpus, weight, asked, drawn, None, None, None, None)
        missing = any(self.weights[name] for name in set(self.weights) - set(self.corpora))
        epochs = [
            self.drawn.get(shard["prefix"], 0) * self.budget / shard["tokens"]
            for shard in shards
            if shard["split"] == "train" and shard["tokens"]
        ]
        return Row(
            corpus=corpus,
            weight=weight,
            asked=asked,
            drawn=self.share[corpus],
            drawn_documents=None if missing else self.density[corpus] / sum(self.density.values()),
            documents=sum(documents_of(s) for s in shards if s["split"] == "train"),
            tokens={x: sum(s["tokens"] for s in shards if s["split"] == x) for x in SPLITS},
            epochs=max(epochs, default=0.0),
        )


def documents_of(shard: Mapping[str, Any]) -> int:
    """The documents of a shard; of an imported one several sequences may be one."""
    return shard.get("documents", shard["sequences"])


def by_shard(train: list[str]) -> dict[str, float]:
    """The share of each prefix of a blend.json's list."""
    weights = dict(zip(train[1::2], map(float, train[::2]), strict=True))
    total = sum(weights.values())
    return {prefix: weight / total for prefix, weight in weights.items()}


def expected(weights: Mapping[str, float], corpora: Mapping[str, Shards]) -> dict[str, float]:
    """The same of the corpora that are built, before there is a blend.json."""
    return {
        shard["prefix"]: weights[corpus] / sum(weights.values()) * share
        for corpus, shards in corpora.items()
        if weights.get(corpus)
        for shard, share in shares(shards, "train")
    }


def lines(config: Config, name: str, phase: str) -> Iterator[str]:
    """The table of a phase of a run, built or not, and what stands out in it."""
    known, run = Names(config), config.run(name)
    known.require(SimpleNamespace(run=name), f"pretrain.{phase}")
    owner = known.owner(SimpleNamespace(run=name), f"pretrain.{phase}")
    path = Path(PATHS["blend"].format(run=owner, phase=phase))
    weights, blend = derived.weights(config, run, phase), run.pretrain.phases[phase].blend
    contents = built(run, weights)
    corpora = {corpus: content["shards"] for corpus, content in contents.items()}
    told = read_json(path) if path.exists() else None
    fresh = (
        told is not None and set(corpora) == set(weights) and told == make_blend(weights, corpora)
    )
    made = Mixture(weights, corpora, budget(run, phase), told["train"] if fresh else None).rows()
    yield f"{phase} of {name}: blend {blend}, {budget(run, phase):,} tokens to train on"
    yield ""
    yield from table(made)
    yield ""
    yield from remarks(made, derived.gaps(config, run, f"pretrain.{phase}"))
    if other := [corpus for corpus in contents if outdated(config, run, corpus, contents[corpus])]:
        yield f"built from another config, to be made again: {', '.join(other)}"
    elif told is not None and not fresh:
        yield f"{path} is of other weights or corpora, and will be made again"
    if len(contents) < len(weights):
        yield f"{len(weights) - len(contents)} of {len(weights)} corpora are not built; build them:"
        yield f"  snakemake --profile profiles/local {path}"


def built(run: Run, corpora: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The manifests of the corpora that are built."""
    tokenizer = run.pretrain.tokenizer
    paths = {c: Path(PATHS["corpus"].format(tokenizer=tokenizer, corpus=c)) for c in corpora}
    return {corpus: manifest.read(path) for corpus, path in paths.items() if path.exists()}


def outdated(config: Config, run: Run, corpus: str, content: Mapping[str, Any]) -> bool:
    """Whether a corpus was built from another config than today's."""
    named = {"tokenizer": run.pretrain.tokenizer, "corpus": corpus}
    return content["identity"] != specs.of(config, "corpus", named).identity


def table(made: list[Row]) -> Iterator[str]:
    """The rows in columns, and their sums."""
    yield from aligned([HEAD, *(cells(row) for row in made), sums(made)])


def cells(row: Row) -> tuple[str, ...]:
    """A row in words."""
    tokens = row.tokens or {}
    return (
        row.corpus,
        "–" if row.weight is None else f"{row.weight:g}",
        percent(row.asked),
        percent(row.drawn),
        percent(row.drawn_documents),
        "not built" if row.documents is None else f"{row.documents:,}",
        count_of(tokens["train"]) if tokens else "–",
        "–" if row.epochs is None else f"{row.epochs:.2f}{'!' if row.repeated else ''}",
        *(count_of(tokens[split]) if tokens else "–" for split in ("valid", "test")),
    )


def sums(made: list[Row]) -> tuple[str, ...]:
    """The last line: of what is built."""
    there = [row for row in made if row.tokens]
    tokens = {split: sum(row.tokens[split] for row in there) for split in SPLITS}
    return (
        "in all",
        f"{sum(row.weight or 0 for row in made):g}",
        *(
            percent(total([getattr(row, key) for row in made]))
            for key in ("asked", "drawn", "drawn_documents")
        ),
        f"{sum(row.documents for row in there):,}",
        count_of(tokens["train"]),
        "",
        count_of(tokens["valid"]),
        count_of(tokens["test"]),
    )


def total(parts: Iterable[float | None]) -> float | None:
    """The sum; None where a part of it is not known."""
    known = list(parts)
    return None if None in known else sum(known)


def percent(share: float | None) -> str:
    """A share for people."""
    return "–" if share is None else f"{100 * share:.1f} %"


def remarks(made: list[Row], gaps: list[tuple[str, float, str]]) -> Iterator[str]:
    """What a reader of the table must not miss."""
    if repeated := [f"{row.corpus} {row.epochs:.1f}" for row in made if row.repeated]:
        yield (
            f"! seen more than {REPEATS} times: {', '.join(repeated)}; give them more documents, or"
            " less weight"
        )
    if untrained := [row.corpus for row in made if row.weight == 0]:
        yield f"tokenized, not trained on (weight 0): {', '.join(untrained)}"
    for split in SPLITS:
        if without := [row.corpus for row in made if split in row.absent]:
            yield f"nothing in {split}: {', '.join(without)}"
    if gaps:
        listed = ", ".join(f"{name} {percent(share)}" for name, share, _ in gaps)
        whole = percent(sum(share for _, share, _ in gaps))
        yield f"gaps, {whole} of the published mix: {listed}"
