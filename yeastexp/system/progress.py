"""Progress of a command as lines on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar

from rich.console import Console

from yeastexp.system.formatting import format_share
from yeastexp.system.terminal import echo, printable

Item = TypeVar("Item")
Say = Callable[[str], None]

FIRST_SECONDS, MOST_SECONDS = 5.0, 60.0
"""Seconds until the first progress line, and the longest time between two; each wait is twice the last."""


def say(line: str) -> None:
    """Print a line on standard error, so that standard output has nothing but results."""
    echo(line, err=True)


def say_to(console: Console) -> Say:
    """Return the function that prints lines beside a console's tables: on standard error if these go to output."""
    if console.file is sys.stdout and not console.is_jupyter:
        return say
    return lambda line: console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def shows_bars(console: Console) -> bool:
    """Whether a console can show a moving progress bar: a terminal can, and a notebook that has widgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


class Pace:
    """Decides when the next progress line is due, where no bar can be shown."""

    def __init__(self) -> None:
        self.began = self.said = time.monotonic()
        self.wait = FIRST_SECONDS

    def due(self) -> bool:
        """Whether a line is due now; if so, the next one is scheduled."""
        now = time.monotonic()
        if now < self.said + self.wait:
            return False
        self.said, self.wait = now, min(2 * self.wait, MOST_SECONDS)
        return True

    def left(self, share: float) -> str:
        """Return the share that is done in per cent, and an estimate of the time left."""
        rest = (time.monotonic() - self.began) * (1 - share) / share if share > 0 else 0.0
        return f"{format_share(share)}, about {format_seconds(rest)} left" if share > 0 else format_share(share)


def format_seconds(seconds: float) -> str:
    """Return a duration as '40 s', '12 min' or '3 h 5 min'."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(items: Iterable[Item], say: Say = say) -> Iterator[Item]:
    """Iterate over items, and print from time to time how many are done."""
    listed, pace = list(items), Pace()
    for index, item in enumerate(listed):
        if pace.due():
            say(f"{index} of {len(listed)} ({pace.left(index / len(listed))})")
        yield item


@contextmanager
def counting(total: int, say: Say = say) -> Iterator[Callable[[float], None]]:
    """Yield a function to call with each fraction of an item that is finished; it prints the progress at times."""
    pace, done = Pace(), 0.0

    def advance(part: float) -> None:
        nonlocal done
        done += part
        if pace.due():
            say(f"{done:.3g} of {total} ({pace.left(min(1.0, done / total))})")

    yield advance
