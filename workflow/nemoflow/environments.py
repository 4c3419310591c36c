"""What became of rows of prompts, in all and by environment."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from nemoflow.prompt_rows import NO_ENVIRONMENT
from nemoflow.rows import RowCount


class Environments:
    """Counts of rows; in = train + validation + dropped, in all and for each environment."""

    def __init__(self) -> None:
        self.rows = RowCount()
        self._dropped: dict[str, Counter] = defaultdict(Counter)

    def drop(self, environment: str, reason: str, where: str) -> None:
        """Count a row that is dropped."""
        self.rows.rows_in += 1
        self.rows.drop(reason, where)
        self._dropped[environment][reason] += 1

    def keep(self) -> None:
        """Count a row that stays."""
        self.rows.rows_in += 1
        self.rows.kept += 1

    def add_unread(self, counts: RowCount) -> None:
        """Count what was no row at all."""
        for reason, rows in counts.dropped.items():
            self.rows.rows_in += rows
            self.rows.dropped[reason] += rows
            self.rows.first.setdefault(reason, counts.first[reason])
            self._dropped[NO_ENVIRONMENT][reason] += rows

    def told(self, kept: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        """{environment: {"in", "dropped", "train", "validation"}} of the kept (environment, split).

        "dropped" has the rows of each reason.
        """
        counts = Counter(kept)
        found = {}
        for name in sorted({*self._dropped, *(name for name, _ in counts)}):
            dropped = self._dropped.get(name, Counter())
            splits = {split: counts[name, split] for split in ("train", "validation")}
            found[name] = {
                "in": dropped.total() + sum(splits.values()),
                "dropped": dict(sorted(dropped.items())),
                **splits,
            }
        return found
