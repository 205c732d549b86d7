"""A deadline at which a command answers whatever it is doing, be it inside a library or while libraries load."""

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
"""Seconds before the end of a budget that are left to save files and to leave Python."""

AGAIN_SECONDS = 0.5
"""The interval at which the error is raised again: Python drops exceptions that are raised in a finaliser."""

SOONEST_SECONDS = 1e-3
"""The least time of a timer: 0 would switch it off."""

GRACE_SECONDS = 1.0
"""Seconds after the deadline for the error of `at` to arrive, and for Python to be left."""


@contextmanager
def at(moment: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise an error in the main thread at a time of the monotonic clock, and again until the block is left.

    Contexts do not nest: an inner one replaces the outer, and leaving it ends both. Does nothing in other threads, or
    on systems without SIGALRM.
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
    """Print a line and end the process with status 1 soon after a deadline, if it still loads libraries then.

    Python runs signal handlers, and so that of `at`, between two bytecodes, and loading a library from a busy disk is a
    single one of them. So the end is left to the watchdog thread of `faulthandler`, which needs no interpreter lock. It
    cannot print a line of ours: a child process, forked before, does so. An error that is raised in time goes its way,
    but if leaving Python takes long, the watchdog ends the process too.
    """
    left = moment + GRACE_SECONDS - time.monotonic()
    if left <= 0 or not hasattr(os, "fork"):
        yield
        return
    here, there = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, none of which this child needs
        child = os.fork()
    # The child waits for the deadline, or for the pipe to be closed: by the parent when loading is done, or by the
    # system when the parent ends.
    if not child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(there)
        if not select.select([here], [], [], left)[0]:
            os.write(2, f"{line}\n".encode())
        os._exit(0)
    os.close(here)
    with Path(os.devnull).open("w") as nowhere:  # the watchdog also prints a traceback, which nobody wants
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
