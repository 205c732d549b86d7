"""What commands print: consoles, progress bars, and text that is safe to print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")


def printable(text: str) -> str:
    """A text on one line without control characters: names of files and keys may hold anything."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def counts(splits: Mapping[str, int]) -> str:
    """The number of images in each split, as in `10 train, 8 val`."""
    return ", ".join(f"{count} {split}" for split, count in splits.items())


def console() -> Console:
    """Standard output, with a fixed width unless it is a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def progress(items: Iterable[Item]) -> Iterator[Item]:
    """The items, with a progress bar on stderr if that is a terminal."""
    listed = list(items)
    with click.progressbar(listed, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield from bar


@contextmanager
def image_progress(total: int) -> Iterator[Callable[[float], None]]:
    """A function to call with each fraction of an image that is finished; a bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda fraction: bar.advance(task, fraction)
