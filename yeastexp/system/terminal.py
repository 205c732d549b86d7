"""Printing lines, in which no name or message can send control sequences to the terminal.

Tables and progress bars go through `yeastexp.system.console`; nothing is printed in any other way.
"""

from __future__ import annotations

import sys
import traceback
import unicodedata
from collections.abc import Iterable
from types import TracebackType

import click


def printable(text: str) -> str:
    """Return a text on one line with control characters escaped, which file names and keys may contain."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    plain = character.isprintable() or unicodedata.category(character) == "Zs"  # a no-break space is not "printable"
    return character if plain else character.encode("unicode_escape").decode()


def echo(*lines: object, err: bool = False) -> None:
    """Print lines, each made printable.

    Bytes of a path that are not UTF-8 stay as they are for a program that reads standard output.
    """
    as_bytes = not err and not sys.stdout.isatty()
    for line in lines:
        pieces = [str(line)] if not as_bytes else _around_raw_bytes(str(line))
        click.echo("".join(piece if as_bytes and _is_raw(piece) else printable(piece) for piece in pieces), err=err)


def _around_raw_bytes(line: str) -> Iterable[str]:
    return line if any(map(_is_raw, line)) else [line]


def _is_raw(piece: str) -> bool:
    return len(piece) == 1 and "\udc80" <= piece <= "\udcff"


def echo_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug, as `sys.excepthook`."""
    text = "".join(traceback.format_exception(kind, error, trace))
    echo(*text.expandtabs(4).rstrip("\n").split("\n"), err=True)
