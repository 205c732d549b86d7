"""Printing tables and progress bars, in which no cell can send control sequences to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from yeastexp.system.terminal import printable

WIDTH = 160
"""The width of tables in columns if the output is no terminal."""


class _HarmlessConsole(Console):
    """Escapes control characters in all text; its own control codes, such as colours, are separate segments."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or error, of a fixed width unless it is a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return _HarmlessConsole(stderr=stderr, width=None if stream.isatty() else WIDTH, emoji=False)


def console_into(file: IO[str], columns: int = WIDTH) -> Console:
    """Return a console that writes into a file."""
    return _HarmlessConsole(file=file, width=columns, emoji=False)
