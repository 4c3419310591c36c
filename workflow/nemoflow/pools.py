"""Processes that take calls one after the other, and end with the one that began them."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from nemoflow.errors import UserError
from nemoflow.workers import CONTEXT, die_with_parent


@contextmanager
def pool(
    workers: int, begin: Callable[..., None] | None = None, *given: Any
) -> Iterator[ProcessPoolExecutor]:
    """Processes forked from this one at the first call; each calls `begin(*given)` first.

    Raises:
        UserError: one of them was killed.
    """
    processes = ProcessPoolExecutor(workers, CONTEXT, start, (begin, *given))
    try:
        yield processes
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} processes was killed, most likely for want of memory; give the job"
            " more, or fewer threads"
        ) from None
    finally:
        processes.shutdown(cancel_futures=True)


def start(begin: Callable[..., None] | None, *given: Any) -> None:
    """The beginning of a process; Ctrl-C is the parent's to hear."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if begin is not None:
        begin(*given)
