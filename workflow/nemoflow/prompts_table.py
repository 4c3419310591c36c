"""What became of the rows of a set of prompts: its environments in a table, before and after."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemoflow import manifest, specs
from nemoflow.columns import aligned
from nemoflow.config import Config
from nemoflow.kept_rows import SPLITS
from nemoflow.products import PATHS

ITEM = "evaluation_item"  # a reason of its own: not the row's fault
HEAD = ("environment", "rows in", "dropped", "items of tasks", *SPLITS)


def lines(config: Config, prompts: str) -> Iterator[str]:
    """The table of a set of prompts that is built, and what stands out in it."""
    model = config.data("prompts", prompts)
    path = Path(PATHS["resolve"].format(prompts=prompts))
    if not path.exists():
        yield f"prompts {prompts} are not built; build them:"
        yield f"  snakemake --profile profiles/local {path}"
        return
    content = manifest.read(path)
    yield f"{prompts}: {model.about}" if model.about else prompts
    yield ""
    yield from table(content["environments"])
    yield ""
    yield from remarks(content)
    for name, gap in model.gaps.items():
        yield f"gap: {name}: {gap.why}"
    if content["identity"] != specs.of(config, "resolve", {"prompts": prompts}).identity:
        yield "built from another config; to be made again"


def table(environments: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The environments in columns, the largest first, and their sums."""
    order = sorted(environments, key=lambda name: (-environments[name]["in"], name))
    counts = {name: numbers(environments[name]) for name in order}
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    cells = [(name, *(f"{n:,}" for n in row)) for name, row in [*counts.items(), ("in all", sums)]]
    yield from aligned([HEAD, *cells])


def numbers(counts: Mapping[str, Any]) -> list[int]:
    """The columns of an environment."""
    items = counts["dropped"].get(ITEM, 0)
    dropped = sum(counts["dropped"].values()) - items
    return [counts["in"], dropped, items, *(counts[split] for split in SPLITS)]


def remarks(content: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the table must not miss."""
    faults = {r: n for r, n in content["rows"]["dropped"].items() if r != ITEM}
    if faults:
        yield f"dropped: {', '.join(f'{n:,} {reason}' for reason, n in faults.items())}"
    for task, told in content.get("apart_from", {}).items():
        yield f"apart from {task}: {told['texts']:,} texts, {told['dropped']:,} rows dropped"
    for name, told in content.get("external", {}).items():
        at = told["pinned"].get("revision", "")[:12]
        yield f"of {name}{f' at {at}' if at else ''}: {told['rows']:,} rows"
    if "min" in (range_ := content.get("difficulty", {})):
        yield f"difficulty ({range_['field']}): " + ", ".join(
            f"{key} {range_[key]:g}" for key in ("min", "mean", "max")
        )
    if content["in_both"]:
        yield f"! {content['in_both']:,} prompts are in training and in validation"
    if content["validation"]:
        without = [name for name, counts in content["environments"].items()
                   if counts["train"] and not counts["validation"]]  # fmt: skip
        if without:
            yield f"! nothing in validation of {', '.join(without)}"
