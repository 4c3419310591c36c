"""What the first rows of a source tell before anything is written.

That the template trains something in them, and what: one is shown. And whether gigatoken encodes
them as the tokenizer's own library does.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from nemoflow import encoding, gate, shown
from nemoflow.chat import Place, Rendered, Renderer, Sequence, Unread
from nemoflow.encoding import Encoder
from nemoflow.errors import UserError
from nemoflow.progress import say
from nemoflow.vocabulary import Folder

CACHE = 160 << 20  # bytes that gigatoken's cache may grow to in each process
MOST_BYTES, MOST_ROWS = 256 << 10, 64
ENOUGH = 3  # rows for which a template fails, and none for which it does not
EXAMPLE = 2000  # characters
OF_THE_TEMPLATE = ("no_trained_tokens", "template_error", "template_not_incremental")


def renderer(
    folder: Folder, settings: Mapping[str, Any], path: str, rows: list[tuple[Place, Unread]]
) -> Renderer:
    """The renderer of a source, once its first rows are as they should be.

    Raises:
        UserError: the template trains nothing in them, or fails.
    """
    sample = first(rows)
    exact = Renderer(folder, settings, encoding.exact(folder))
    made = exact.render(path, sample)
    refuse_untrained(made, len(sample))
    if made.kept:
        show(folder, path, next(iter(made.kept.values())))
    why = encoding.refusal(folder)
    if why is None:
        try:
            fast = Renderer(folder, settings, encoding.Gigatoken(folder, CACHE))
        except (ValueError, RuntimeError) as error:  # of what it knows that it cannot do
            why = str(error).partition("\n")[0]
        else:
            stress = list(gate.stress(folder.told.added_tokens))
            same = agree(stress, fast.encoder, exact.encoder)
            if same and equal(made, fast.render(path, sample)):
                return fast
            why = "it encodes a text otherwise"
    say(f"{path}: not with gigatoken: {why}")
    return exact


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


def show(folder: Folder, path: str, sequences: list[Sequence]) -> None:
    """Print a conversation as the model sees it; warn where it does not learn to stop."""
    colour = sys.stderr.isatty()
    say(f"{path}: the first conversation; what is trained is {shown.legend(colour)}")
    for ids, mask in sequences:
        text = shown.marked(folder, ids, mask, colour)
        say(text if len(text) <= EXAMPLE else f"{text[:EXAMPLE]}{shown.RESET * colour} …")
    control = list(folder.specials)
    if not any(np.isin(ids[mask > 0], control).any() for ids, mask in sequences):
        say(
            "warning: no control token is trained, not even the one that ends a turn: a model that"
            " learns from this does not stop. Let the template's {% generation %} enclose it"
        )


def agree(texts: list[bytes], one: Encoder, other: Encoder) -> bool:
    """Whether two encoders give equal ids."""
    return gate.difference(texts, one.encode_parts(texts), other.encode_parts(texts)) is None


def equal(one: Rendered, other: Rendered) -> bool:
    """Whether two encoders made the same of rows."""
    pairs = zip(one.kept.values(), other.kept.values(), strict=True)
    return all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.mask, b.mask)
        for ours, theirs in pairs
        for a, b in zip(ours, theirs, strict=True)
    )
