"""When training must stop early, saved: SIGTERM, or a time limit that comes near."""

import os
import signal
import time

SPARE = 10.0  # seconds for the processes around this one to end in


class Interruption:
    """Watches for SIGTERM, and for the end of the job that NEMOFLOW_ENDS tells (epoch seconds).

    A context: SIGTERM then no longer ends the process, but waits for `reason` to be asked between
    two steps.
    """

    def __init__(self):
        ends = os.environ.get("NEMOFLOW_ENDS")
        self.ends = float(ends) if ends else None
        self.asked = False
        self.seen, self.longest = time.time(), 0.0

    def __enter__(self) -> "Interruption":
        self.former = signal.signal(signal.SIGTERM, self.ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.former)

    def ask(self, *_: object) -> None:
        """Take note of SIGTERM; the step at work is finished first."""
        self.asked = True

    def reason(self) -> str | None:
        """Why the step to come must not begin, or None. Asked once before every step.

        The longest time between two such questions, loading and saving among it, is what the next
        step may need, and the checkpoint after it again.
        """
        now = time.time()
        self.longest, self.seen = max(self.longest, now - self.seen), now
        if self.asked:
            return "SIGTERM"
        if self.ends is not None and now + 2 * self.longest + SPARE > self.ends:
            return f"its time limit is {max(0, round(self.ends - now))} s away"
        return None
