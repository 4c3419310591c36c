"""What became of the conversations of a mixture: its sources in tables, as asked for and as packed.

What is not built is told from config alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow import manifest, specs
from nemoflow.columns import aligned
from nemoflow.config import Config
from nemoflow.forecast import count_of
from nemoflow.mixture_table import percent
from nemoflow.products import PATHS

Json = dict[str, Any]
SPLITS = ("train", "valid")
ROWS = (
    "source", "weight", "asked", "of rows", "of tokens", "rows in", "dropped", "left out", *SPLITS,
)  # fmt: skip
LENGTHS = ("p50", "p90", "p99", "longest")  # of sequences, as rendered
TOKENS = ("source", "sequences", "tokens", "trained", *LENGTHS)


@dataclass(frozen=True)
class Source:
    """A source: its weight, share of all weights, what its manifest and the packed rows' tell."""

    name: str
    weight: float
    asked: float
    rendered: Json | None
    packed: Json | None

    def rows(self) -> tuple[str, ...]:
        """Its line in the table of rows."""
        told, packed = self.rendered, self.packed
        return (
            self.name,
            f"{self.weight:g}",
            percent(self.asked),
            *(percent(packed["got"][key] if packed else None) for key in ("rows", "tokens")),
            f"{told['rows']['in']:,}" if told else "not built",
            f"{sum(self.dropped().values()):,}" if told else "–",
            *(f"{packed['rows'][key]:,}" if packed else "–" for key in ("left_out", *SPLITS)),
        )

    def tokens(self) -> tuple[str, ...]:
        """Its line in the table of tokens: those that are packed, else all that is rendered."""
        told, packed = self.rendered, self.packed
        if told is None:
            return (self.name, *"–" * (len(TOKENS) - 1))
        if packed:
            of_packed = [packed[key] for key in ("sequences", "tokens", "trained_tokens")]
            amounts = [sum(found[split] for split in SPLITS) for found in of_packed]
        else:
            amounts = [told[key] for key in ("sequences", "tokens", "trained_tokens")]
        lengths = [f"{told['lengths'][key]:,}" for key in LENGTHS]
        return (self.name, f"{amounts[0]:,}", *map(count_of, amounts[1:]), *lengths)

    def dropped(self) -> dict[str, int]:
        """Rows by the reason for which they are not used."""
        found = dict(self.rendered["rows"]["dropped"]) if self.rendered else {}
        for reason, rows in (self.packed["rows"]["dropped"] if self.packed else {}).items():
            found[reason] = found.get(reason, 0) + rows
        return found


def lines(config: Config, mixture: str) -> Iterator[str]:
    """The tables of a mixture, built or not, and what stands out in them."""
    model = config.data("mixtures", mixture)
    path = PATHS["pack"].format(mixture=mixture)
    content = built(path)
    yield f"{mixture}: {model.about}" if model.about else mixture
    yield " ".join(how(model))
    current = content is None or same(config, "pack", content, mixture=mixture)
    sources = list(sources_of(config, mixture, content if current else None))
    if sources:
        yield ""
        yield from aligned([ROWS, *(source.rows() for source in sources)])
    if any(source.rendered for source in sources):
        yield ""
        yield from aligned([TOKENS, *(source.tokens() for source in sources)])
    yield ""
    yield from remarks(sources)
    yield from filled(content) if content else ()
    for name, gap in model.gaps.items():
        yield f"gap: {name}: {gap.why}"
    yield from to_do(config, mixture, path, current and content is not None, sources)


def how(model: Any) -> Iterator[str]:
    """How it is packed, in words."""
    yield f"rows of {model.pack_size:,} tokens,"
    if model.pad_multiple > 1:
        yield f"length - 1 of sequences padded to {model.pad_multiple},"
    if model.import_ is not None:
        yield f"imported from {model.import_}"
        return
    yield f"longer sequences: {model.too_long}; weights are shares of {model.weigh_by}"


def built(path: str) -> Json | None:
    """A manifest; None where there is none."""
    return manifest.read(path) if Path(path).exists() else None


def same(config: Config, stage: str, content: Json, **wildcards: str) -> bool:
    """Whether a product is what today's config asks for."""
    return content["identity"] == specs.of(config, stage, wildcards).identity


def sources_of(config: Config, mixture: str, packed: Json | None) -> Iterator[Source]:
    """The sources in the order of the config; `packed` is the manifest of their rows."""
    entries = config.data("mixtures", mixture).sources
    everything = sum(entry.weight for entry in entries.values())
    for name, entry in entries.items():
        rendered = built(PATHS["render"].format(mixture=mixture, source=name))
        of_packed = packed["sources"].get(name) if packed else None
        yield Source(name, entry.weight, entry.weight / everything, rendered, of_packed)


def remarks(sources: list[Source]) -> Iterator[str]:
    """Why rows are missing, and what was done to others, by source."""
    for source in sources:
        if dropped := listed(source.dropped()):
            yield f"{source.name}: dropped: {dropped}"
        if reasoning := listed((source.rendered or {}).get("reasoning", {})):
            yield f"{source.name}: reasoning: {reasoning}"
        if source.packed:
            told = source.packed["sequences"]
            changed = {key: told[key] for key in ("cut", "split", "empty_pieces") if told[key]}
            of_sequences = listed({**told["dropped"], **changed})
            yield from [f"{source.name}: sequences: {of_sequences}"] if of_sequences else []
    if unused := [source.name for source in sources if not source.weight]:
        yield f"not packed (weight 0): {', '.join(unused)}"


def listed(counts: Mapping[str, int]) -> str:
    """Counts in words."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def filled(content: Json) -> Iterator[str]:
    """What the packed rows hold."""
    for split in SPLITS:
        told = content[split]
        padding = f", {told['padding']:,} of padding" if told.get("padding") else ""
        yield (
            f"{split}: {told['rows']:,} rows of {told['sequences']:,} sequences and"
            f" {told['tokens']:,} tokens ({told['trained_tokens']:,} trained{padding}),"
            f" filled to {100 * told['fill']:.2f} %"
        )


def to_do(
    config: Config, mixture: str, path: str, packed: bool, sources: list[Source]
) -> Iterator[str]:
    """What is missing, or of another config, and how it is built."""
    wanted = [source for source in sources if source.weight]
    missing = [source.name for source in wanted if source.rendered is None]
    old = [
        source.name
        for source in wanted
        if source.rendered
        and not same(config, "render", source.rendered, mixture=mixture, source=source.name)
    ]
    if old:
        yield f"rendered from another config, to be made again: {', '.join(old)}"
    if missing:
        yield f"{len(missing)} of {len(wanted)} sources are not rendered"
    if not packed:
        why = (
            "packed from another config, to be made again" if Path(path).exists() else "not packed"
        )
        yield f"{why}:"
        yield f"  snakemake --profile profiles/local {path}"
