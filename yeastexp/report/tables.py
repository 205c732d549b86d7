"""Tables of a page, made from tables of the command line and from rows of files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich import markup
from rich import table as rich
from rich.text import Text

from yeastexp.metrics.summary import formatter, shown
from yeastexp.report.html import Table
from yeastexp.system.formatting import format_number

MOST_ROWS = 300
"""The most rows of a table in the page; the file that it is read from has all."""


def from_rich(table: rich.Table) -> Table:
    """Convert a table of the command line, cell by cell."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    return Table(
        caption=_plain(table.title or ""),
        headings=[_plain(column.header) for column in table.columns],
        rows=list(zip(*columns, strict=True)),
        numeric=frozenset(index for index, column in enumerate(table.columns) if column.justify == "right"),
        group_ends=frozenset(index for index, row in enumerate(table.rows) if row.end_section),
    )


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else markup.render(str(cell)).plain


def subsample(rows: Sequence[Any], source: str) -> tuple[list[Any], str]:
    """At most `MOST_ROWS` evenly spaced rows with the first and the last, and a note if rows were left out."""
    if len(rows) <= MOST_ROWS:
        return list(rows), ""
    kept = sorted({round(index * (len(rows) - 1) / (MOST_ROWS - 1)) for index in range(MOST_ROWS)})
    return [rows[index] for index in kept], f"{len(kept)} of {len(rows)} rows; {source} has all."


def epoch_table(
    caption: str, epochs: Sequence[Mapping[str, float | None]], source: str, approximate: Collection[str] = ()
) -> Table:
    """A table of the rows of `metrics.csv`."""
    keys = list(dict.fromkeys(key for row in epochs for key in row))
    rows, note = subsample(epochs, source)
    cells = [[format_number(row.get(key)) for key in keys] for row in rows]
    headings = ["/".join(shown(part, approximate) for part in key.split("/")) for key in keys]
    return Table(caption, headings, cells, numeric=frozenset(range(len(keys))), note=note)


def image_table(
    caption: str,
    images: Iterable[str],
    scores: Mapping[tuple[str, str], Mapping[str, float | None]],
    source: str,
    approximate: Collection[str] = (),
) -> Table:
    """A table of scores with a row for each image, and a column for each metric and class."""
    kept, note = subsample(list(images), source)
    names = [(shown(metric, approximate), name) for metric, name in scores]
    headings = ["image", *(metric if name == "all" else f"{metric} {name}" for metric, name in names)]
    rows = [[image, *(formatter(*key)(by_image.get(image)) for key, by_image in scores.items())] for image in kept]
    return Table(caption, headings, rows, numeric=frozenset(range(1, len(headings))), note=note)
