"""Progress bars of commands, and counts of images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import click

Item = TypeVar("Item")


def counts(splits: Mapping[str, int]) -> str:
    """The number of images in each split, as in `10 train, 8 val`."""
    return ", ".join(f"{count} {split}" for split, count in splits.items())


def progress(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate over items with a progress bar on stderr if that is a terminal, else with a line from time to time."""
    if not sys.stderr.isatty():
        from yeastexp.system.progress import counted

        yield from counted(items)
        return
    with click.progressbar(list(items), file=sys.stderr) as bar:
        yield from bar


@contextmanager
def image_progress(total: int) -> Iterator[Callable[[float], None]]:
    """Show progress on stderr, as a bar on a terminal, else by a line from time to time.

    Gives a function to call with each fraction of an image that is finished.
    """
    from yeastexp.system.progress import counting

    if not sys.stderr.isatty():
        with counting(total) as advance:
            yield advance
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    from yeastexp.system.console import console

    columns = BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda fraction: bar.advance(task, fraction)
