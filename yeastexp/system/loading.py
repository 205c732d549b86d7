"""A line on the terminal if loading libraries takes long, which on a busy machine can be half a minute."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from yeastexp.system.terminal import echo

PATIENCE = 5.0
"""Seconds after the start of a command at which it says that it still loads libraries."""


LONG = ("run", "resume", "check", "crossval", "sweep")
"""Commands that report their progress wherever their output goes; all others do so on a terminal only."""


@contextmanager
def told(started: float) -> Iterator[None]:
    """Print a line if the calling thread imports modules PATIENCE seconds after `started` (on the monotonic clock)."""
    if not (sys.stderr.isatty() or (sys.argv[1:2] and sys.argv[1] in LONG)):
        yield
        return
    waited_for = threading.get_ident()

    def look() -> None:
        if _imports(sys._current_frames().get(waited_for)):
            echo("loading libraries", err=True)

    timer = threading.Timer(max(0.0, started + PATIENCE - time.monotonic()), look)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
