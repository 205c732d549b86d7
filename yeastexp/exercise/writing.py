"""The tables and files of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from yeastexp.drawing import plots
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import files
from yeastexp.system.console import console


def results_table(title: str, caption: str | None, first: str, *headings: str) -> Table:
    """A table without rows: names in its first column, numbers in the others."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def show(table: Table, sentences: Sequence[str]) -> None:
    """Print a table, and sentences on what it shows."""
    output = console()
    output.print(table)
    for sentence in sentences:
        output.print(f"{sentence}\n", highlight=False, markup=False)


def write(folder: Path, name: str, figures: Mapping[str, plots.Figure], results: Mapping[str, Any]) -> list[Path]:
    """Write plots as PNG and SVG, and results as JSON under `name`; returns their paths.

    Files of an earlier study are overwritten. Raises UserError if the folder cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder")
    written = []
    try:
        for title, figure in figures.items():
            for suffix in ("png", "svg"):
                written.append(folder / f"{title}.{suffix}")
                plots.save(figure, written[-1])
        written.append(folder / f"{name}.json")
        files.write_text(written[-1], json.dumps(results, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        fault = f"{folder}: cannot be written to ({error.strerror}); free some space or name another folder"
        raise UserError(fault, status=RUN_FAILED) from error
    return written
