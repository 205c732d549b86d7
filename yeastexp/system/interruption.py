"""Ctrl-C and SIGTERM, handled between two steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from yeastexp.system import processes

HEEDED = (signal.SIGINT, signal.SIGTERM)
ENDING = (signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Turns the first Ctrl-C or SIGTERM within the block into a request, `wanted`; a second raises KeyboardInterrupt.

    The first raises it too unless `gently` is set, which the training loop does while it looks at `wanted`. `unit` is
    what is finished first, for the line that is printed; None prints nothing.
    """

    def __init__(self, unit: str | None = "step") -> None:
        self.unit = unit
        self.wanted = False
        self.gently = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._receive) for one in HEEDED}
        return self

    def __exit__(self, *raised: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.wanted = self.wanted, True
        if again or not self.gently:
            raise KeyboardInterrupt
        # Not `print`: the signal may have come in the middle of one, whose buffer must not be entered twice.
        if self.unit and processes.current().writes:
            os.write(2, f"stopping after this {self.unit}; once more to stop at once\n".encode())


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a closed terminal, raise KeyboardInterrupt, so that temporary files are removed.

    A signal that is ignored, as SIGHUP is under `nohup`, stays ignored.
    """
    here = threading.current_thread() is threading.main_thread()
    heeded = [one for one in ENDING if here and signal.getsignal(one) == signal.SIG_DFL]
    for one in heeded:
        signal.signal(one, signal.default_int_handler)
    try:
        yield
    finally:
        for one in heeded:
            signal.signal(one, signal.SIG_DFL)
