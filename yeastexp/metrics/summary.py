"""Summaries of scores, per-image means with intervals beside pooled scores, as tables, rows and TensorBoard tags."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from typing_extensions import TypedDict

from yeastexp.metrics.intervals import Interval, interval
from yeastexp.metrics.pixels import ALL, MEAN, Scores
from yeastexp.registry import KINDS
from yeastexp.system.formatting import format_interval, format_number, format_score


class Score(TypedDict):
    """A row of a summary: the mean over images with its 95 % interval, the pooled score, and the number of images."""

    per_image: float | None
    low: float | None
    high: float | None
    pooled: float | None
    images: int


Summary = dict[str, dict[str, dict[str, Any]]]
"""`Score`s by metric and row name (a class, a part, `ALL` or `MEAN`)."""


def rows_of(scores: Scores, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """A metric's scores by row name, (N,) each: an image's mean over classes is that of the classes with a score."""
    rows = scores.rows.numpy()
    if scores.parts or rows.shape[1] != len(classes):
        return dict(zip((ALL, *scores.parts), rows.T, strict=False))
    by_class = {name: rows[:, index] for index, name in enumerate(classes)}
    return {**by_class, MEAN: np.array([_mean(row) for row in rows])}


def pooled_of(scores: Scores, classes: Sequence[str]) -> dict[str, float]:
    """A metric's pooled scores by row name: of the counts summed over all images."""
    pooled = scores.pooled.tolist()
    if scores.parts or len(pooled) != len(classes):
        return dict(zip((ALL, *scores.parts), pooled, strict=False))
    return {**dict(zip(classes, pooled, strict=True)), MEAN: _mean(pooled)}


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN without any."""
    numbers = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def summarise(scores: Mapping[str, Scores], classes: Sequence[str]) -> Summary:
    """The summary of scores by metric, in numbers that JSON can hold: None stands for NaN."""
    summary: Summary = {}
    for metric, of_metric in scores.items():
        pooled = pooled_of(of_metric, classes)
        summary[metric] = {
            name: _entry(interval(values.tolist(), of_metric.bounds), pooled[name])
            for name, values in rows_of(of_metric, classes).items()
        }
    return summary


def _entry(per_image: Interval, pooled: float) -> dict[str, Any]:
    numbers = {"per_image": per_image.mean, "low": per_image.low, "high": per_image.high, "pooled": pooled}
    return {**{key: None if math.isnan(n) else n for key, n in numbers.items()}, "images": per_image.images}


def monitored(summary: Summary, metric: str) -> float:
    """The value that selects the best checkpoint: the mean over images and classes; NaN if there is none."""
    by_class = summary[metric]
    return _number(by_class[monitored_row(by_class)]["per_image"])


def monitored_row(rows: Collection[str]) -> str:
    """The row of a metric that selects the best checkpoint."""
    return MEAN if MEAN in rows else ALL


def shown(metric: str, approximate: Collection[str]) -> str:
    """The name of a metric as people read it, marked if the cells that it scores are approximate."""
    return f"{metric} (approximate)" if metric in approximate else metric


def tags(summary: Summary, approximate: Collection[str] = ()) -> dict[str, float]:
    """The summary as TensorBoard tags: `val/<metric>/<class>`, or `val/<metric>` if it has one score.

    TensorBoard allows no brackets in a tag, so that metrics of approximate cells are `val/<metric>_approximate`.
    """
    return {
        f"val/{metric}{'_approximate' * (metric in approximate)}{'' if name == ALL else f'/{name}'}": _number(
            row["per_image"]
        )
        for metric, by_class in summary.items()
        for name, row in by_class.items()
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV text of rows, with a column for each key that any of them has; floats in full, NaN as an empty field."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, keys, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value != value else value for key, value in row.items()})
    return out.getvalue()


def image_rows(names: Sequence[str], scores: Mapping[str, Scores], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each image, metric and class."""
    return [
        {"image": image, "metric": metric, "class": name, "score": float(values[index])}
        for index, image in enumerate(names)
        for metric, of_metric in scores.items()
        for name, values in rows_of(of_metric, classes).items()
    ]


def lacking(summary: Summary, like: Summary) -> list[tuple[str, str]]:
    """The (metric, row name) pairs of the summary `like` that `summary` lacks."""
    return [(metric, name) for metric in like for name in like[metric] if name not in summary.get(metric, {})]


def completed(summary: Summary, like: Summary) -> Summary:
    """A summary with the rows of the summary `like`, in its order; rows that `summary` lacks have no score.

    Baselines predict classes alone: metrics that ask for more of a prediction cannot score them.
    """
    none: dict[str, Any] = {"per_image": None, "low": None, "high": None, "pooled": None, "images": 0}
    return {
        metric: {name: summary.get(metric, {}).get(name, none) for name in by_class}
        for metric, by_class in like.items()
    }


def formatter(metric: str, name: str) -> Callable[[float | None], str]:
    """The formatter of a metric's row: numbers of cells are written as plain numbers, scores with fixed decimals."""
    # The registry lacks a metric whose plugin was not executed: its values are formatted as scores.
    numbers = getattr(KINDS["metric"][metric], "numbers", ()) if metric in KINDS["metric"] else ()
    return format_number if name in numbers else format_score


class ScoreTable(Table):
    """A table of columns of names, then of numbers, that narrows instead of cutting off numbers.

    If it is wider than the console, it first loses its vertical lines and padding, then breaks headings between words,
    then cells between words, and only then words.
    """

    def __init__(self, title: str, names: Sequence[str], numbers: Sequence[str]) -> None:
        super().__init__(title=title, title_justify="left", title_style="bold")
        for heading in names:
            self.add_column(heading, overflow="fold")
        for heading in numbers:
            self.add_column(heading, justify="right")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Widths are set on copies: the same table may be printed again, on a wider console. Rich by itself would shrink
        # the widest columns first, and break numbers while names still have room.
        table, unlimited = copy.copy(self), options.update(max_width=10_000)
        if self.__rich_measure__(console, unlimited).maximum > options.max_width:
            table.box, table.padding, table.show_edge = box.SIMPLE_HEAD, 0, False
            table.columns = [copy.copy(column) for column in self.columns]
            for pieces in (lambda cell: [cell], str.split):  # intervals break before names of metrics do
                for column in table.columns:
                    if column.justify == "right":
                        whole = [*str(column.header).split(), *itertools.chain(*map(pieces, map(str, column.cells)))]
                        column.width = max(console.render_str(text).cell_len for text in whole if text)
                if table.__rich_measure__(console, unlimited).minimum <= options.max_width:
                    break
            if table.__rich_measure__(console, unlimited).minimum > options.max_width:
                for column in table.columns:  # broken words are better than columns that are cut off
                    column.width, column.overflow = None, "fold"
        return Table.__rich_console__(table, console, options)


def final_table(
    title: str,
    summary: Summary,
    last: Summary | None,
    baselines: Mapping[str, Summary],
    approximate: Collection[str] = (),
) -> Table:
    """The table of final scores: per image with interval, pooled, then the last checkpoint's and the baselines'."""
    others = {"last": last} if last is not None else {}
    headings = ("per image", "95 % interval", "pooled", *others, *baselines)
    table = ScoreTable(title, ("metric", "class"), headings)
    for metric, by_class in summary.items():
        for name, row in by_class.items():
            form = formatter(metric, name)
            beside = [form(other[metric][name]["per_image"]) for other in (*others.values(), *baselines.values())]
            mean, spread = form(row["per_image"]), format_interval(row["low"], row["high"], form)
            table.add_row(shown(metric, approximate), escape(name), mean, spread, form(row["pooled"]), *beside)
        table.add_section()
    return table
