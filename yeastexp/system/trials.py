"""Trying in a child process what could crash this one: C libraries crash on some damaged files."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from yeastexp.errors import UserError


def refuse_if_fatal(path: Path, read: Callable[[], object]) -> None:
    """Raises UserError if reading a file ends a child process by a signal; exceptions of `read` are ignored.

    Costs a fork, some milliseconds. On systems without fork nothing is tried.
    """
    if not hasattr(os, "fork"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, none of which reads the file
        child = os.fork()
    if not child:
        with suppress(BaseException):
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # no traceback of a crash that is expected
            read()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise UserError(f"{path}: cannot be read (its library crashed on it); it is damaged; save it again")
