"""A moment at which a command has to answer, whatever it is doing: libraries that load look at no clock."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

LEAVING_SECONDS = 2.0
"""Kept of the time of a command whatever happens, to save what there is and to leave Python."""

AGAIN_SECONDS = 0.5
"""After which it is raised once more, for an exception in a finaliser is lost."""

SOONEST_SECONDS = 1e-3

GRACE_SECONDS = 1.0
"""After a moment, for what `at` raises then to arrive, and for Python to be left."""


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


@contextmanager
def loading(moment: float, line: str) -> Iterator[None]:
    """Print a line and end the process a little after a moment, if it still loads libraries then.

    The signal of `at` is only seen between two steps of Python, and loading a library from a busy disk is one of them.
    So a thread of C ends the process, with status 1, and before it does, a process of its own says the line. What was
    raised in time is left to whoever catches it, unless leaving Python takes long.
    """
    left = moment + GRACE_SECONDS - time.monotonic()
    if left <= 0 or not hasattr(os, "fork"):
        yield
        return
    here, there = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, none of which this child needs
        child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(there)
        if not select.select([here], [], [], left)[0]:
            os.write(2, f"{line}\n".encode())
        os._exit(0)
    os.close(here)
    with Path(os.devnull).open("w") as nowhere:  # for the traceback that comes with it
        faulthandler.dump_traceback_later(left + AGAIN_SECONDS, exit=True, file=nowhere)
        try:
            yield
        except BaseException:
            faulthandler.dump_traceback_later(GRACE_SECONDS, exit=True, file=os.dup(nowhere.fileno()))
            raise
        else:
            faulthandler.cancel_dump_traceback_later()
        finally:
            os.close(there)
            os.waitpid(child, 0)
