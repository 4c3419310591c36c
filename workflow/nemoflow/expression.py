"""Expressions over wildcards, as profiles may write them for Snakemake.

Snakemake takes an expression that it cannot evaluate for plain text, and hands that on.
"""

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from nemoflow.errors import UserError

NAMES = {"wildcards", "attempt", "threads", "input", "rulename", "resources", "workflow"}
NUMBER = re.compile(r"""\s*['"]?\s*\d+(\.\d+)?\s*['"]?\s*""")


def tree(value: Any) -> ast.expr | None:
    """A value as a Python expression; None for plain text, and for what is no expression."""
    if not isinstance(value, str):
        return None
    try:
        found = ast.parse(value, mode="eval").body
    except SyntaxError:
        return None
    named = {node.id for node in ast.walk(found) if isinstance(node, ast.Name)}
    return found if named & NAMES or not named else None


def leaves(value: Any) -> Iterator[Any]:
    """The constants that a value may turn out to be: of a conditional expression, each branch's."""
    found = tree(value)
    if found is None:
        yield value if not isinstance(value, str) or "wildcards" not in value else None
        return
    nodes = [found]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.IfExp):
            nodes += [node.orelse, node.body]
        elif isinstance(node, ast.Constant):
            yield node.value


def misnamed(value: Any, wildcards: set[str] | None) -> Iterator[str]:
    """What an expression names that is not there; Snakemake takes such a one for plain text."""
    found = tree(value)
    if found is None:
        if isinstance(value, str) and "wildcards" in value:
            yield f"{value!r} is no Python expression"
        return
    for node in ast.walk(found):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "wildcards":
            if wildcards is not None and node.attr not in wildcards:
                known = ", ".join(f"wildcards.{name}" for name in sorted(wildcards)) or "none"
                yield f"{value!r}: there is no wildcards.{node.attr}; known here: {known}"
            continue
        named = node.id if isinstance(node, ast.Name) else "wildcards"
        if named not in NAMES and not hasattr(builtins, named):
            yield f"{value!r}: there is no {named}; known here: {', '.join(sorted(NAMES))}"


def evaluated(value: Any, wildcards: Mapping[str, str], place: str) -> Any:
    """A profile's value for one job.

    Raises:
        UserError: it is no expression, or names something else than the job's wildcards.
    """
    if tree(value) is None and not (isinstance(value, str) and "wildcards" in value):
        return value
    told = {"wildcards": SimpleNamespace(**wildcards), "attempt": 1, "threads": 1}
    try:
        return eval(value, {}, told)
    except (SyntaxError, NameError, AttributeError, TypeError) as error:
        known = ", ".join(f"wildcards.{name}" for name in wildcards)
        raise UserError(f"{place}: {value!r}: {error}; known here: {known}") from None
