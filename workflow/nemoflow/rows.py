"""What became of the rows of a source."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nemoflow.errors import UserError

# Dropped because the configuration asks for it; every other reason is a fault of the data.
FILTERS = frozenset({"empty_text", "too_short", "special_token", "used_in", "evaluation_item"})
FILTER = "filter:"  # and the field


def faults_of(dropped: Mapping[str, int]) -> dict[str, int]:
    """The dropped rows, by reason, that are faults of the data."""
    return {reason: rows for reason, rows in dropped.items() if not is_filter(reason)}


class Drop(NamedTuple):
    """Why a row is not used: what it is counted under, and what is wrong with this one."""

    reason: str
    detail: str = ""


class Unusable(Exception):
    """A row that cannot be used."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.drop = Drop(reason, detail)


def is_filter(reason: str) -> bool:
    """Whether rows are dropped for a reason because the configuration asks for it."""
    return reason in FILTERS or reason.startswith(FILTER)


@dataclass
class RowCount:
    """Rows in = rows kept + rows dropped by named reason; what every data product states."""

    rows_in: int = 0
    kept: int = 0
    dropped: Counter = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, where: str = "") -> None:
        """Count a dropped row; of each reason the first place is kept for messages."""
        self.dropped[reason] += 1
        self.first.setdefault(reason, where)

    def as_dict(self) -> dict[str, Any]:
        """{"in", "kept", "dropped": {reason: rows}}; refuses counts that do not add up."""
        if self.rows_in != self.kept + self.dropped.total():
            raise AssertionError(f"{self.rows_in} rows in, but {self.kept} kept, {self.dropped}")
        dropped = dict(sorted(self.dropped.items()))
        return {"in": self.rows_in, "kept": self.kept, "dropped": dropped}

    def check(self, max_dropped: float) -> None:
        """UserError when a larger fraction of the rows than `max_dropped` had a fault."""
        faults = faults_of(self.dropped)
        if sum(faults.values()) > max_dropped * self.rows_in:
            listed = ", ".join(f"{n} {why} (first: {self.first[why]})" for why, n in faults.items())
            raise UserError(
                f"{sum(faults.values())} of {self.rows_in} rows cannot be used: {listed}."
                f" That is more than max_dropped: {max_dropped} allows; mend the rows, or raise it"
            )
