"""Asking a server again when it, or the way to it, fails for a moment."""

import time
from collections.abc import Callable
from typing import TypeVar

from nemoflow.progress import say

T = TypeVar("T")

WAITS = [1.0, 2.0, 4.0, 8.0]  # seconds between tries
BUSY = {408, 425, 429, 500, 502, 503, 504}  # HTTP: ask again later


def retried(
    call: Callable[[], T],
    faults: tuple[type[Exception], ...],
    passing: Callable[[Exception], bool],
) -> T:
    """The result of `call`, tried again after each of WAITS while its fault is a passing one.

    The last fault, and one of `faults` that is not passing, is raised as it is.
    """
    for wait in WAITS:
        try:
            return call()
        except faults as error:
            if not passing(error):
                raise
            first = str(error).strip().split("\n")[0] or type(error).__name__
            say(f"{first}; again in {wait:g} s")
            time.sleep(wait)
    return call()
