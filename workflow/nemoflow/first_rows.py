"""What the first rows of a source tell before anything is written.

That the template trains something in them, and what: one is shown. And whether gigatoken encodes
them as the tokenizer's own library does.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nemoflow import encoding, gate, shown
from nemoflow.chat import Place, Rendered, Renderer, Sequence, Unread
from nemoflow.errors import UserError
from nemoflow.gate import Encoded
from nemoflow.pools import pool
from nemoflow.progress import say
from nemoflow.vocabulary import HUGGINGFACE, Folder

MOST_BYTES, MOST_ROWS = 256 << 10, 64
ENOUGH = 3  # rows for which a template fails, and none for which it does not
EXAMPLE = 2000  # characters
OF_THE_TEMPLATE = ("no_trained_tokens", "template_error", "template_not_incremental")


class Judged(NamedTuple):
    """What an encoder makes of the first rows, and of other texts."""

    rows: Rendered
    stress: Encoded


def renderer(
    folder: Folder, settings: Mapping[str, Any], path: str, rows: list[tuple[Place, Unread]]
) -> Renderer:
    """The renderer of a source, once its first rows are as they should be.

    Raises:
        UserError: the template trains nothing in them, or fails.
    """
    sample = first(rows)
    stress = list(gate.stress(folder.told.added_tokens)) if folder.kind == HUGGINGFACE else []
    with pool(1) as other:  # it loads the tokenizer's own library while gigatoken loads here
        told = other.submit(exactly, folder.path, settings, path, sample, stress)
        fast, why = with_gigatoken(folder, settings)
        found = fast and judged(fast, path, sample, stress)
        exact, lines = told.result()
    for line in lines:
        say(line)
    if found and agree(stress, found, exact):
        return fast
    say(f"{path}: not with gigatoken: {why or 'it encodes a text otherwise'}")
    return Renderer(folder, settings, encoding.exact(folder))


def with_gigatoken(
    folder: Folder, settings: Mapping[str, Any]
) -> tuple[Renderer | None, str | None]:
    """(the fast renderer, None), or (None, why there is none)."""
    if why := encoding.refusal(folder):
        return None, why
    try:
        return Renderer(folder, settings, encoding.Gigatoken(folder, encoding.CACHE)), None
    except (ValueError, RuntimeError) as error:  # of what it knows that it cannot do
        return None, str(error).partition("\n")[0]


def exactly(
    folder: Path,
    settings: Mapping[str, Any],
    path: str,
    sample: list[tuple[Place, Unread]],
    stress: list[bytes],
) -> tuple[Judged, list[str]]:
    """What the tokenizer's own library makes of rows and other texts, and lines to show of it."""
    own = Folder(folder)
    found = judged(Renderer(own, settings, encoding.exact(own)), path, sample, stress)
    refuse_untrained(found.rows, len(sample))
    kept = found.rows.kept.values()
    return found, example(own, path, next(iter(kept))) if kept else []


def judged(
    renderer: Renderer, path: str, sample: list[tuple[Place, Unread]], stress: list[bytes]
) -> Judged:
    """What a renderer's encoder makes of them."""
    return Judged(renderer.render(path, sample), renderer.encoder.encode_parts(stress))


def first(rows: list[tuple[Place, Unread]]) -> list[tuple[Place, Unread]]:
    """The first rows, as many as are looked at."""
    sizes = np.cumsum([len(row) if isinstance(row, bytes) else 0 for _, row in rows])
    return rows[: min(MOST_ROWS, int(np.searchsorted(sizes, MOST_BYTES)) + 1)]


def refuse_untrained(made: Rendered, rows: int) -> None:
    """Raise UserError where a template is the reason that no row is left."""
    faults = [drop for drop in made.dropped.values() if drop.reason in OF_THE_TEMPLATE]
    if made.kept or len(faults) < min(ENOUGH, rows):
        return
    why = ": ".join(filter(None, faults[0]))
    raise UserError(
        f"template: {len(faults)} of the first {rows} rows cannot be trained on, and none can:"
        f" {why}. Nothing was written. Does it write assistant turns, and is what they say inside"
        " of {% generation %}, where it has that?"
    )


def example(folder: Folder, path: str, sequences: list[Sequence]) -> list[str]:
    """A conversation as the model sees it, and a warning where it does not learn to stop."""
    colour = sys.stderr.isatty()
    lines = [f"{path}: the first conversation; what is trained is {shown.legend(colour)}"]
    for ids, mask in sequences:
        text = shown.marked(folder, ids, mask, colour)
        lines.append(text if len(text) <= EXAMPLE else f"{text[:EXAMPLE]}{shown.RESET * colour} …")
    control = list(folder.specials)
    if not any(np.isin(ids[mask > 0], control).any() for ids, mask in sequences):
        lines.append(
            "warning: no control token is trained, not even the one that ends a turn: a model that"
            " learns from this does not stop. Let the template's {% generation %} enclose it"
        )
    return lines


def agree(texts: list[bytes], one: Judged, other: Judged) -> bool:
    """Whether two encoders gave equal ids."""
    ours, theirs = one.rows.kept, other.rows.kept
    if ours.keys() != theirs.keys() or gate.difference(texts, one.stress, other.stress):
        return False
    return all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.mask, b.mask)
        for number, sequences in ours.items()
        for a, b in zip(sequences, theirs[number], strict=True)
    )
