"""What became of every document and byte of a corpus, by source file.

Rows in = kept + dropped by named reason, and so are their bytes: those of a line with its end, or
of a Parquet row's text. What is blank between lines of JSON counts as no row.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from nemoflow.errors import UserError
from nemoflow.rows import faults_of

KEPT = "kept"
SHOWN = 3  # places of each reason in a message


class Ledger:
    """Counts by (source file, reason); `kept` is a reason as well.

    `first` has the first places of each reason, for messages: {reason: [where and what]}.
    `noted` counts what is kept and yet worth knowing: special tokens by their text, NULs.
    """

    def __init__(self) -> None:
        self.rows: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.first: dict[str, list[str]] = {}
        self.noted: Counter[str] = Counter()

    def count(self, path: str, reason: str, rows: int, size: int, where: str = "") -> None:
        """Count rows of a file and their bytes; `where` is a place to show for the reason."""
        self.rows[path, reason] += rows
        self.bytes[path, reason] += size
        if where and len(places := self.first.setdefault(reason, [])) < SHOWN:
            places.append(f"{path}, {where}")

    def see(self, path: str) -> None:
        """Count a file that may have no rows."""
        self.count(path, KEPT, 0, 0)

    def note(self, what: str, count: int) -> None:
        """Count texts that are kept and have something to be known of."""
        if count:
            self.noted[what] += count

    def move(self, path: str, reason: str, size: int, where: str) -> None:
        """Drop a row that was counted as kept."""
        self.rows[path, KEPT] -= 1
        self.bytes[path, KEPT] -= size
        self.count(path, reason, 1, size, where)

    def add(self, other: "Ledger") -> None:
        """Add the counts of other rows, which come after these."""
        self.rows.update(other.rows)
        self.bytes.update(other.bytes)
        self.noted.update(other.noted)
        for reason, places in other.first.items():
            self.first[reason] = [*self.first.get(reason, []), *places][:SHOWN]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Ledger":
        """The ledger that `receipt` told."""
        ledger = cls()
        for path, reasons in told["files"].items():
            for reason, (rows, size) in reasons.items():
                ledger.count(path, reason, rows, size)
        ledger.first = {reason: list(places) for reason, places in told["first"].items()}
        ledger.noted.update(told["noted"])
        return ledger

    def receipt(self) -> dict[str, Any]:
        """All of it: {"files": {path: {reason: [rows, bytes]}}, "first", "noted"}."""
        files: dict[str, dict[str, list[int]]] = {}
        for path, reason in sorted(self.rows):
            if self.rows[path, reason] or reason == KEPT:
                told = [self.rows[path, reason], self.bytes[path, reason]]
                files.setdefault(path, {})[reason] = told
        return {"files": files, "first": self.first, "noted": dict(sorted(self.noted.items()))}

    def totals(self, counts: Mapping[tuple[str, str], int]) -> dict[str, Any]:
        """{"in", "kept", "dropped": {reason: n}} of rows or of bytes."""
        by_reason: Counter[str] = Counter()
        for (_, reason), count in counts.items():
            by_reason[reason] += count
        kept = by_reason.pop(KEPT, 0)
        dropped = {reason: count for reason, count in sorted(by_reason.items()) if count}
        return {"in": kept + sum(dropped.values()), "kept": kept, "dropped": dropped}

    def facts(self) -> dict[str, Any]:
        """What a manifest says; `by_file` is {path: {reason: [rows, bytes]}}, `first` as here."""
        return {
            "rows": self.totals(self.rows),
            "bytes": self.totals(self.bytes),
            "noted": dict(sorted(self.noted.items())),
            "by_file": self.receipt()["files"],
            "first": self.first,
        }

    def check(self, corpus: str, max_dropped: float) -> None:
        """UserError when a larger share of the rows than `max_dropped` had a fault."""
        rows = self.totals(self.rows)
        faults = faults_of(rows["dropped"])
        if sum(faults.values()) > max_dropped * rows["in"]:
            listed = "; ".join(
                f"{n:,} {reason} ({', then '.join(self.first.get(reason, []))})"
                for reason, n in faults.items()
            )
            raise UserError(
                f"corpus {corpus}: {sum(faults.values()):,} of {rows['in']:,} rows cannot be used:"
                f" {listed}. That is more than max_dropped: {max_dropped} allows; mend the rows,"
                f" or raise corpora.{corpus}.max_dropped"
            )
