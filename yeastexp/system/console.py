"""What is printed as tables and progress bars: no cell can steer a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from yeastexp.system.terminal import printable

WIDTH = 160
"""Columns of tables if no terminal has a width."""


class _HarmlessConsole(Console):
    """Renders what it is given with control characters escaped; its own, such as colours, are no text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))


def console(*, stderr: bool = False) -> Console:
    """Standard output or error for tables and progress bars; of a fixed width unless it is a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return _HarmlessConsole(stderr=stderr, width=None if stream.isatty() else WIDTH, emoji=False)


def console_into(file: IO[str], columns: int = WIDTH) -> Console:
    """A console that writes into a file, such as one that nobody reads."""
    return _HarmlessConsole(file=file, width=columns, emoji=False)
