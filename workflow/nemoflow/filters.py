"""Which rows of a source are asked for: conditions on their fields."""

from collections.abc import Mapping
from typing import Any

from nemoflow.rows import FILTER

Row = Mapping[str, Any]
MISSING = object()


def field(row: Any, dotted: str) -> Any:
    """What stands in a row under a dotted name, MISSING where nothing does.

    A name with dots in it is looked for as it is, too; a number counts elements of a list.
    """
    if isinstance(row, Mapping) and dotted in row:
        return row[dotted]
    for name in dotted.split("."):
        if isinstance(row, list) and name.isdecimal() and int(name) < len(row):
            row = row[int(name)]
        elif isinstance(row, Mapping) and name in row:
            row = row[name]
        else:
            return MISSING
    return row


class Filters:
    """The conditions of a source.

    `used_in` is a name that the field of that name must have among its own; `conditions` are by
    field: a value, a list of values, or a mapping with in, not_in, min, max.
    """

    def __init__(self, used_in: str | None, conditions: Mapping[str, Any] | None):
        self._used_in, self._conditions = used_in, conditions or {}

    def refusal(self, row: Row) -> str | None:
        """The reason for which a row is left out, used_in or filter:FIELD; None if it stays."""
        if self._used_in is not None:
            names = row.get("used_in") or []
            if isinstance(names, str):
                names = [name.strip() for name in names.split(",")]
            if not isinstance(names, list) or self._used_in not in names:
                return "used_in"
        for name, condition in self._conditions.items():
            if not holds(condition, field(row, name)):
                return FILTER + name
        return None


def holds(condition: Any, value: Any) -> bool:
    """Whether a field's value is one that is asked for."""
    if value is MISSING or value is None:
        return False
    asked = condition if isinstance(condition, Mapping) else {"in": condition}
    values = value if isinstance(value, list) else [value]
    if "in" in asked and not any(among(asked["in"], each) for each in values):
        return False
    if "not_in" in asked and any(among(asked["not_in"], each) for each in values):
        return False
    if "min" in asked and not (is_number(value) and value >= asked["min"]):
        return False
    return "max" not in asked or (is_number(value) and value <= asked["max"])


def among(wanted: Any, value: Any) -> bool:
    """Whether a value is one of those wanted; true is not 1."""
    choices = wanted if isinstance(wanted, list) else [wanted]
    return any(
        value == choice and isinstance(value, bool) == isinstance(choice, bool)
        for choice in choices
    )


def is_number(value: Any) -> bool:
    """Whether a value can be compared with a bound."""
    return isinstance(value, int | float) and not isinstance(value, bool)
