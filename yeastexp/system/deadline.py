"""A moment at which a command has to answer, whatever it is doing: libraries that load look at no clock."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

LEAVING_SECONDS = 2.0
"""Kept of the time of a command whatever happens, to save what there is and to leave Python."""

AGAIN_SECONDS = 0.5
"""After which it is raised once more, for an exception in a finaliser is lost."""

SOONEST_SECONDS = 1e-3


@contextmanager
def at(moment: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise an error in the main thread from a moment of the monotonic clock on, until this context is left.

    Of two contexts the inner one holds, and leaving it ends both. Nothing is raised in another thread, or where the
    system has no such signal.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def answer(number: int, frame: FrameType | None) -> None:
        raise error()

    signal.signal(signal.SIGALRM, answer)
    signal.setitimer(signal.ITIMER_REAL, max(moment - time.monotonic(), SOONEST_SECONDS), AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
