"""Tables: as printed, and as long as a page can hold."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from yeastexp.report import tables


def test_a_printed_table_keeps_its_cells_and_groups() -> None:
    table = Table(title=escape("[bold] is a name"))
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_row(escape("[red]"), "0.5")
    table.add_section()
    table.add_row("iou", "–")
    found = tables.from_rich(table)
    assert (found.caption, list(found.headings)) == ("[bold] is a name", ["metric", "score"])
    assert [list(row) for row in found.rows] == [["[red]", "0.5"], ["iou", "–"]]
    assert found.numeric == {1} and found.group_ends == {0}


def test_a_long_table_says_what_it_leaves_out() -> None:
    kept, note = tables.subsample(list(range(5000)), "metrics.csv")
    assert (len(kept), kept[0], kept[-1]) == (tables.MOST_ROWS, 0, 4999)
    assert note == "300 of 5000 rows; metrics.csv has all."
