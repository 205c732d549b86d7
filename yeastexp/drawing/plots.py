"""How figures look that have axes: the one room that knows matplotlib.

Every series has a colour, a marker and a line of its own, so that nothing is told by colour alone; the colours are
those of Okabe and Ito (2008), told apart by colour-blind readers. The ground is white and opaque, so that figures read
on light and dark pages; they are as wide as a telephone shows them without shrinking their letters to nothing. The same
figure gives the same bytes.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from yeastexp.errors import UserError
from yeastexp.system import files

Format = Literal["png", "svg"]

WIDTH = 5.6
"""Inches: at 390 pixels letters of 10 points are still 7 points high."""

DPI = 250
"""Of PNG files: 1400 pixels across."""

INK = "#24292f"
FAINT = "#6e7781"

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's without yellow, too light for a white ground, and black, which is the ink."""

MOST_NAMED = 45
"""Rows that have room for the names of their images; of more, every so many are named."""

LETTERS = 56
"""That fit across a figure."""

LONGEST_NAME = 22
"""Letters of an image's name that stand beside its row."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")

STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8dee4",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "yeastexp",
}


@dataclass(frozen=True)
class Series:
    """Points of one name, in order; those that are NaN are left out. `look` keeps series of one kind alike.

    Series of the same `look` share colour and marker; of those `hollow` ones are drawn as outlines.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    look: int | None = None
    hollow: bool = False

    def points(self) -> tuple[list[float], list[float]]:
        """Those that are numbers."""
        kept = [(x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        return [x for x, _ in kept], [y for _, y in kept]


def curves(
    series: Sequence[Series], *, x_label: str, y_label: str, levels: Mapping[str, float] | None = None
) -> Figure:
    """Lines over steps, marked at their points where those are few; `levels` are constants, such as baselines."""
    with _styled():
        figure, (axes,) = _figure(1)
        for index, one in enumerate(series):
            x, y = one.points()
            drawn = _look(one, index)
            drawn["marker"] = drawn["marker"] if len(x) <= 25 else "none"
            axes.plot(x, y, label=one.name, linestyle=LINES[index % len(LINES)], **drawn)
        for index, (name, level) in enumerate((levels or {}).items()):
            axes.axhline(level, color=FAINT, linewidth=1.2, linestyle=(0, (1 + 3 * index, 2)), label=name)
        axes.set(xlabel=x_label, ylabel=y_label)
        _legend(figure, axes)
        return _laid_out(figure)


def scatter(
    panels: Mapping[str, Sequence[Series]],
    *,
    x_label: str,
    y_label: str,
    joined: bool = False,
    ends: tuple[str, str] | None = None,
) -> Figure:
    """Points in panels, one below the other, that share their axes and a legend.

    `joined` draws a thin line through each series; `ends` is written beside the first and last point of the first.
    """
    with _styled():
        figure, every = _figure(len(panels), aspect=0.62)
        for axes, (title, series) in zip(every, panels.items(), strict=True):
            axes.set(title=title, ylabel=y_label)
            axes.margins(y=0.14)
            for index, one in enumerate(series):
                look = _look(one, index) | {"linestyle": "-" if joined else "none", "linewidth": 0.9}
                axes.plot(*one.points(), label=one.name, **look)
            if ends and series:
                _write_ends(axes, series[0], ends)
        every[-1].set_xlabel(x_label)
        _legend(figure, every[0])
        return _laid_out(figure)


def strip(
    groups: Mapping[str, Sequence[float]],
    *,
    y_label: str,
    names: Sequence[str] = (),
    intervals: Mapping[str, tuple[float, float, float]] | None = None,
) -> Figure:
    """A dot an image in a column a group, from left to right in the order given; NaN are left out.

    `intervals` are mean, low and high of a group, drawn as a line on a band; `names` are those of the images, of which
    the lowest in each group is named.
    """
    with _styled():
        figure, (axes,) = _figure(1)
        for place, (group, values) in enumerate(groups.items()):
            at = place + _spread(len(values))
            x, y = Series(group, at.tolist(), values).points()
            if intervals and group in intervals:
                _draw_interval(axes, place, *intervals[group])
            axes.plot(x, y, linestyle="none", alpha=0.8, **_look(Series(group, x, y), place))
            if names and y:
                lowest = int(np.nanargmin(np.asarray(values, dtype=np.float64)))
                _write_below(axes, _shortened(names[lowest]), at[lowest], values[lowest])
        _name_columns(axes, list(groups))
        axes.set(ylabel=y_label, xlim=(-0.6, len(groups) - 0.4))
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)
        return _laid_out(figure)


def paired(
    names: Sequence[str], left: Sequence[float], right: Sequence[float], *, labels: tuple[str, str], x_label: str
) -> Figure:
    """Two values of each image joined by a line, a row an image, the largest loss on top and the largest gain below.

    An image that lacks one of them has no row. Names stand beside their rows as long as there is room for them.
    """
    rows = [row for row in zip(names, left, right, strict=True) if math.isfinite(row[1]) and math.isfinite(row[2])]
    rows.sort(key=lambda row: row[2] - row[1])
    with _styled():
        figure, (axes,) = _figure(1, aspect=min(1.9, 0.22 + 0.042 * len(rows)))
        places = range(len(rows))
        before, after = [row[1] for row in rows], [row[2] for row in rows]
        axes.hlines(places, before, after, color=FAINT, linewidth=1.0)
        for index, (values, label) in enumerate(zip((before, after), labels, strict=True)):
            # The first is a ring about the second where they are the same.
            look = _look(Series(label, values, list(places), hollow=index == 0), index)
            axes.plot(values, places, linestyle="none", label=label, markersize=(8.5, 4.5)[index], **look)
        every = max(1, math.ceil(len(rows) / MOST_NAMED))
        axes.set_yticks(list(places)[::every], [_shortened(row[0]) for row in rows][::every])
        axes.set(xlabel=x_label, ylim=(len(rows) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        _legend(figure, axes)
        return _laid_out(figure)


def matrix(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """A confusion matrix (K, K), true classes in rows: shares of each row as shades, and beside the counts."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    with _styled():
        figure, (axes,) = _figure(1, aspect=min(0.95, 0.3 + 0.13 * len(classes)))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(counts.shape):
            share = f"{shares[row, column]:.1%}" if totals[row, 0] else "–"
            ink = "white" if shares[row, column] > 0.55 else INK
            text = f"{share}\n{counts[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9.5)
        _name_columns(axes, list(classes))
        axes.set_yticks(range(len(classes)), list(classes))
        axes.set(xlabel="predicted", ylabel="true")
        axes.grid(visible=False)
        return _laid_out(figure)


def rendered(figure: Figure, form: Format) -> bytes:
    """A figure as the bytes of a file, the same whenever it is drawn."""
    out = io.BytesIO()
    metadata = {"Software": None} if form == "png" else {"Creator": None, "Date": None}
    with _styled():
        figure.savefig(out, format=form, dpi=DPI, metadata=metadata)
    return out.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all, as PNG or SVG, which the name says."""
    form = path.suffix.removeprefix(".").lower()
    if form not in ("png", "svg"):
        raise UserError(f"{path}: figures are written as .png or .svg; name such a file")
    with files.appearing(path) as temporary:
        temporary.write_bytes(rendered(figure, "png" if form == "png" else "svg"))


@contextmanager
def _styled() -> Iterator[None]:
    """This room's style alone, whatever the user's own matplotlib is set to."""
    with style.context(["default", STYLE], after_reset=True):
        yield


def _figure(panels: int, aspect: float = 0.66) -> tuple[Figure, list[Axes]]:
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(WIDTH, WIDTH * aspect * panels), layout=layout)
    every = figure.subplots(panels, 1, sharex=True, sharey=True, squeeze=False)
    return figure, [axes for (axes,) in every]


def _laid_out(figure: Figure) -> Figure:
    """The figure with everything in its place for good: each drawing would move things by another fraction."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _look(series: Series, index: int) -> dict[str, Any]:
    kind = index if series.look is None else series.look
    colour = COLOURS[kind % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[kind % len(MARKERS)],
        "markerfacecolor": "none" if series.hollow else colour,
        "markeredgecolor": colour,
    }


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 1 if max(map(len, labels)) > 34 else min(2, len(labels))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def _spread(count: int) -> npt.NDArray[np.float64]:
    return np.linspace(-0.28, 0.28, count) if count > 1 else np.zeros(count)


def _draw_interval(axes: Axes, place: int, mean: float, low: float, high: float) -> None:
    if math.isfinite(low) and math.isfinite(high):
        axes.fill_between([place - 0.4, place + 0.4], low, high, color=FAINT, alpha=0.22, linewidth=0)
    if math.isfinite(mean):
        axes.hlines(mean, place - 0.4, place + 0.4, color=INK, linewidth=1.4)


def _name_columns(axes: Axes, names: Sequence[str]) -> None:
    """Names under columns, broken into lines where they would run into each other."""
    letters = max(6, LETTERS // max(1, len(names)))
    axes.set_xticks(range(len(names)), [textwrap.fill(name, letters) for name in names])


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def _write_ends(axes: Axes, series: Series, texts: tuple[str, str]) -> None:
    x, y = series.points()
    for text, at in zip(texts, (0, -1), strict=True):
        if x:
            _write_below(axes, text, x[at], y[at])


def _write_below(axes: Axes, text: str, x: float, y: float) -> None:
    axes.annotate(text, (x, y), (0, -7), textcoords="offset points", ha="center", va="top", fontsize=8.5)
