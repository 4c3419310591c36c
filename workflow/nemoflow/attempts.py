"""How often a training job was started, and what the attempts before the one at work have spent.

`progress/attempts.json` holds {count, first, spent, started}: `first` and `started` are when the
first and the newest attempt began, in seconds since the epoch; `spent` is the time of those that
have ended, in seconds. `started` is null once the newest has ended and is counted in `spent`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemoflow.files import read_json, write_json


@dataclass
class Attempts:
    """The attempts at one job; what `begin` and `end` change is written at once."""

    progress: Path
    count: int
    first: float | None
    spent: float
    started: float | None

    @classmethod
    def of(cls, progress: Path) -> "Attempts":
        """The attempts that `progress` knows of.

        One that was killed has spent what lies between its start and its last sign of life: what
        it wrote last into `progress`.
        """
        told = {"count": 0, "first": None, "spent": 0.0, "started": None}
        path = progress / "attempts.json"
        if path.exists():
            told |= read_json(path)
        found = cls(progress, **told)
        if found.started is not None:
            found.spent += max(0.0, last_sign(progress) - found.started)
            found.started = None
        return found

    def facts(self) -> dict[str, Any]:
        """What `provenance.record_build` is to know, but for the time of the attempt at work."""
        return {"attempts": self.count, "first": self.first, "spent": self.spent}

    def begin(self, now: float) -> None:
        """Count one more attempt."""
        self.count += 1
        self.first = now if self.first is None else self.first
        self.started = now
        self.write()

    def end(self, now: float) -> None:
        """Count the time of the attempt at work."""
        if self.started is not None:
            self.spent += max(0.0, now - self.started)
            self.started = None
        self.write()

    def write(self) -> None:
        """Keep what is known."""
        told = asdict(self)
        del told["progress"]
        write_json(self.progress / "attempts.json", told)


def last_sign(progress: Path) -> float:
    """When anything in a folder last changed, in seconds since the epoch."""
    return max((path.stat().st_mtime for path in progress.iterdir()), default=0.0)
