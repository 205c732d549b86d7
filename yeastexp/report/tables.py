"""Tables of a page: from those that the command line prints, and from rows of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import markup
from rich import table as rich
from rich.text import Text

from yeastexp.report.html import Table
from yeastexp.system.formatting import format_number, format_score

MOST_ROWS = 300
"""Of a table in the page; more are in the file that it is made of."""


def printed(table: rich.Table, note: str = "") -> Table:
    """What the command line prints, cell by cell."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    return Table(
        caption=_plain(table.title or ""),
        headings=[_plain(column.header) for column in table.columns],
        rows=list(zip(*columns, strict=True)),
        numbers=frozenset(index for index, column in enumerate(table.columns) if column.justify == "right"),
        ends=frozenset(index for index, row in enumerate(table.rows) if row.end_section),
        note=note,
    )


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else markup.render(str(cell)).plain


def listed(caption: str, pairs: Mapping[str, str], headings: tuple[str, str] = ("", "")) -> Table:
    """Names and values."""
    return Table(caption, headings, list(pairs.items()))


def thinned(rows: Sequence[Any], place: str) -> tuple[list[Any], str]:
    """As many rows as a page can hold, the first and last among them, and a line that says so."""
    if len(rows) <= MOST_ROWS:
        return list(rows), ""
    chosen = sorted({round(index * (len(rows) - 1) / (MOST_ROWS - 1)) for index in range(MOST_ROWS)})
    return [rows[index] for index in chosen], f"{len(chosen)} of {len(rows)} rows; {place} has all."


def epochs(caption: str, rows: Sequence[Mapping[str, float | None]], place: str) -> Table:
    """The rows of `metrics.csv`."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    kept, note = thinned(rows, place)
    cells = [[format_number(row.get(key)) for key in keys] for row in kept]
    return Table(caption, keys, cells, numbers=frozenset(range(len(keys))), note=note)


def by_image(
    caption: str, images: Iterable[str], scores: Mapping[tuple[str, str], Mapping[str, float | None]], place: str
) -> Table:
    """A row an image, a column a metric and class."""
    kept, note = thinned(list(images), place)
    headings = ["image", *(metric if name == "all" else f"{metric} {name}" for metric, name in scores)]
    rows = [[image, *(format_score(found.get(image)) for found in scores.values())] for image in kept]
    return Table(caption, headings, rows, numbers=frozenset(range(1, len(headings))), note=note)
