"""metrics.jsonl, one JSON object per logged step, and the curve made from it."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from nemoflow.files import write_whole

TIMINGS = ("seconds", "tokens_per_second")
CURVE_ROWS = 2000


def read(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics file in order; a last line torn by a kill is left out."""
    path = Path(path)
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


class Metrics:
    """Appends to a metrics file, after cutting it back to the step that training resumes from.

    So a resumed run leaves the lines of an undisturbed one, but for timings.
    """

    def __init__(self, path: str | Path, step: int):
        """Keep the lines up to `step`; `seconds` is the training time those lines tell of."""
        kept = [line for line in read(path) if line["step"] <= step]
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one line; numbers keep six significant digits, which is all a curve can use."""
        rounded = {key: float(f"{value:.6g}") for key, value in values.items()}
        rounded |= {key: int(value) for key, value in values.items() if isinstance(value, int)}
        self.file.write(json.dumps({"step": step, **rounded}) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Put the lines on disk; called before a checkpoint that they belong to is published."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def curve(metrics_path: str | Path, csv_path: str | Path) -> None:
    """Write the steps of a metrics file as CSV without timings, thinned to at most 2,000 rows.

    Columns are `step`, then the other keys in alphabetical order; a value that a line lacks is
    empty. First and last step always stay.
    """
    lines = read(metrics_path)
    if len(lines) > CURVE_ROWS:
        stride = (len(lines) - 1) / (CURVE_ROWS - 1)
        lines = [lines[round(row * stride)] for row in range(CURVE_ROWS)]
    keys = sorted({key for line in lines for key in line} - {"step", *TIMINGS})
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *keys], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(csv_path, text.getvalue())
