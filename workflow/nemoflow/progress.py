"""How far a long job is: one line every few seconds, or a bar on a terminal."""

import os
import sys
import time

from tqdm import tqdm


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def in_bytes(size: float) -> str:
    """A number of bytes for people: 3.1GB."""
    return tqdm.format_sizeof(size, "B", 1000)


class Progress:
    """Tells of a training job on standard error.

    `title` is the stage's name, `start` and `total` are steps, `every` seconds lie between lines.
    NEMOFLOW_BAR says that a terminal stands behind the pipe that standard error is.
    """

    def __init__(self, title: str, start: int, total: int, every: float):
        self.title, self.start, self.total, self.every = title, start, total, every
        self.began = self.told = time.monotonic()
        self.bar = None
        if sys.stderr.isatty() or os.environ.get("NEMOFLOW_BAR"):
            self.bar = tqdm(desc=title, initial=start, total=total, unit="step", leave=False)

    def update(self, step: int, loss: float, rate: float, tokens_per_second: float) -> None:
        """Tell that `step` steps are done; `rate` is the learning rate."""
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix_str(f"loss {loss:.3f}  {tokens_per_second:,.0f} tok/s")
        elif now - self.told >= self.every or step == self.total:
            self.told = now
            left = (now - self.began) / max(step - self.start, 1) * (self.total - step)
            print(
                f"{self.title}  {step}/{self.total}  {100 * step // self.total}%"
                f"  loss {loss:.3f}  lr {rate:.2e}  {tokens_per_second:,.0f} tok/s"
                f"  ETA {clock(left)}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self.bar is not None:
            self.bar.close()


class Bytes:
    """Tells how much of a file, or of many, is done; a context manager.

    `total` is in bytes, None where nobody knows it. A bar on a terminal, elsewhere a line every few
    seconds.
    """

    every = 10.0  # seconds between two lines

    def __init__(self, title: str, total: int | None):
        self.title, self.total, self.done = title, total, 0
        self.told = time.monotonic()
        self.bar = None
        if sys.stderr.isatty() or os.environ.get("NEMOFLOW_BAR"):
            self.bar = tqdm(desc=title, total=total, unit="B", unit_scale=True, leave=False)

    def add(self, size: int) -> None:
        """Tell that so many more bytes are done."""
        self.done += size
        if self.bar is not None:
            self.bar.update(size)
        elif time.monotonic() - self.told >= self.every:
            self.told = time.monotonic()
            of = f" of {in_bytes(self.total)}" if self.total else ""
            say(f"{self.title}: {in_bytes(self.done)}{of}")

    def __enter__(self) -> "Bytes":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
