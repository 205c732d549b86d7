"""Plots: the only module that imports matplotlib.

Every series has its own colour, marker and line style, so that nothing is told by colour alone; the colours are those
of Okabe and Ito (2008), which colour-blind readers can tell apart. Saved figures have an opaque white background, so
that they read on light and dark pages, and a width at which a phone still shows legible text. Plotting the same data
again gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Circle, Patch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from yeastexp.errors import UserError
from yeastexp.system import files
from yeastexp.system.formatting import format_score, format_signed

Format = Literal["png", "svg"]

WIDTH = 5.6
"""The width of figures in inches: shown 390 pixels wide, text of 10 points is still 7 points high."""

DPI = 250
"""The resolution of PNG files, which are then 1400 pixels wide."""

INK = "#24292f"
FAINT = "#6e7781"
GRID = "#d8dee4"

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The colours of Okabe and Ito without yellow (too light on white) and without black (used for text)."""

CSS_VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--hairline",
    "#ffffff": "--paper",
    **{colour.lower(): f"--series-{index}" for index, colour in enumerate(COLOURS)},
}
"""The CSS variable that replaces each colour in an HTML page, which defines them for a light and a dark scheme."""

MOST_NAMED = 45
"""The most rows that are all named; of more, every n-th is."""

LONGEST_NAME = 22
"""The most characters of an image's name beside its row."""

MOST_MARKED = 25
"""The most points of a line that each have a marker."""

MOST_BINS = 40
"""The most bins of a histogram."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")

STYLE: dict[str, Any] = {
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans"],
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
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
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
    """A series of points in ascending order of x; points with NaN or infinite coordinates are not drawn.

    Series of the same `look` share colour, marker and line style, and those of the same name an entry in the legend;
    markers of `hollow` ones are outlines. `hint` is the tooltip of its line in an SVG.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    look: int | None = None
    hollow: bool = False
    hint: str = ""

    def points(self) -> tuple[list[float], list[float]]:
        """x and y of the finite points."""
        finite = [(x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        return [x for x, _ in finite], [y for _, y in finite]


@dataclass(frozen=True)
class Distribution:
    """Values by image, and their mean with its confidence interval; either may be absent."""

    name: str
    values: Mapping[str, float]
    mean: float | None = None
    low: float | None = None
    high: float | None = None


def curves(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    event: tuple[float, str] | None = None,
    logarithmic: bool = False,
) -> Figure:
    """Lines over steps, with markers if the points are few.

    `levels` are horizontal lines, such as baselines; `event` is a labelled vertical line.
    """
    with _styled():
        figure, (axes,) = _figure(1)
        for index, curve in enumerate(series):
            x, y = curve.points()
            look = _look(curve, index)
            if len(x) > 1 and (len(x) > MOST_MARKED or len(series) > len(COLOURS)):
                look["marker"] = "none"
            (line,) = axes.plot(x, y, label=curve.name, linestyle=LINES[_kind(curve, index) % len(LINES)], **look)
            line.set_url(curve.hint or None)
        for index, (name, level) in enumerate((levels or {}).items()):
            axes.axhline(level, color=FAINT, linewidth=1.2, linestyle=(0, (1 + 3 * index, 2)), label=name)
        if event:
            _draw_event(axes, *event)
        axes.set(xlabel=x_label, ylabel=y_label)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
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
    """Scatter plots in panels, one below the other, that share their axes and a legend.

    `joined` draws a thin line through each series; `ends` are texts beside the first and the last point of the first
    series of each panel.
    """
    with _styled():
        figure, every_axes = _figure(len(panels), aspect=0.62)
        for axes, (title, series) in zip(every_axes, panels.items(), strict=True):
            axes.set(title=title, ylabel=y_label)
            axes.margins(y=0.14)
            for index, one_series in enumerate(series):
                look = _look(one_series, index) | {"linestyle": "-" if joined else "none", "linewidth": 0.9}
                axes.plot(*one_series.points(), label=one_series.name, **look)
            if ends and series:
                x, y = series[0].points()
                for text, place in zip(ends, (0, -1), strict=True):
                    if x:
                        _write(axes, text, (x[place], y[place]), (0, -7), size=8.5)
        every_axes[-1].set_xlabel(x_label)
        _legend(figure, every_axes[0])
        return _laid_out(figure)


def dots(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    logarithmic: bool = False,
    ticks: Sequence[str] = (),
) -> Figure:
    """A scatter plot with a tooltip for each point: the lines of a series' hint in the order of its points.

    x is a number, or if `ticks` are given, the index of one of them.
    """
    with _styled():
        figure, (axes,) = _figure(1)
        axes.margins(0.08)
        for index, one_series in enumerate(series):
            look = _look(one_series, index)
            hints = one_series.hint.split("\n")
            for place, (x, y) in enumerate(zip(one_series.x, one_series.y, strict=True)):
                (dot,) = axes.plot([x], [y], label=one_series.name, linestyle="none", **look)
                dot.set_url(hints[place] if place < len(hints) else None)
        if ticks:
            axes.set_xticks(range(len(ticks)), [_shortened(name) for name in ticks])
            axes.set_xlim(-0.5, len(ticks) - 0.5)
        elif logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        elif all(float(x).is_integer() for one_series in series for x in one_series.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=x_label, ylabel=y_label)
        _legend(figure, axes)
        return _laid_out(figure)


def distributions(
    rows: Sequence[Distribution],
    *,
    x_label: str,
    named: Literal["lowest", "highest"] | None = None,
    zero: bool = False,
) -> Figure:
    """A strip plot, a row for each distribution: a dot for each image, and the mean on a bar of its interval.

    The lowest or highest image is `named` below its dot, unless all values are equal; `zero` draws a line at 0. If no
    row has dots, the means stand beside their bars in digits.
    """
    dotted = any(row.values for row in rows)
    with _styled():
        figure, (axes,) = _figure(1, aspect=(0.7 + (0.62 if dotted else 0.34) * len(rows)) / WIDTH)
        axes.margins(x=0.08)
        axes.use_sticky_edges = False
        if zero:
            axes.axvline(0, color=FAINT, linewidth=1.0)
        for place, row in enumerate(rows):
            _draw_distribution(axes, place, row)
        # In a second pass, as names are aligned by the limits of the axis, which all rows decide.
        for place, row in enumerate(rows):
            if named and len(set(row.values.values())) > 1:
                extreme = (min if named == "lowest" else max)(row.values, key=lambda name: row.values[name])
                x = row.values[extreme]
                side: Literal["left", "right"] = "left" if 2 * x < sum(axes.get_xlim()) else "right"  # has more room
                _write(axes, _shortened(extreme), (x, place + 0.3), (0, -1), ha=side, size=9)
            elif row.mean is not None and not dotted:
                end = row.mean if row.high is None else max(row.mean, row.high)
                _write(axes, format_score(row.mean), (end, place), (6, 0), ha="left", va="center")
        axes.set_yticks(range(len(rows)), [_shortened(row.name) for row in rows])
        axes.set(xlabel=x_label, ylim=(max(len(rows), 1) - 0.4, -0.5))
        axes.grid(axis="y", visible=False)
        return _laid_out(figure)


def paired(
    names: Sequence[str], left: Sequence[float], right: Sequence[float], *, labels: tuple[str, str], x_label: str
) -> Figure:
    """A row for each image with its two values joined by a line, from the largest loss on top to the largest gain.

    An image that lacks a value has no row. If there are too many rows for all names, every n-th is named.
    """
    rows = [row for row in zip(names, left, right, strict=True) if math.isfinite(row[1]) and math.isfinite(row[2])]
    rows.sort(key=lambda row: row[2] - row[1])
    with _styled():
        figure, (axes,) = _figure(1, aspect=min(1.9, 0.22 + 0.042 * len(rows)))
        places = range(len(rows))
        before, after = [row[1] for row in rows], [row[2] for row in rows]
        axes.hlines(places, before, after, color=FAINT, linewidth=1.0)
        for index, (values, label) in enumerate(zip((before, after), labels, strict=True)):
            # The first is a ring about the second if they are the same.
            look = _look(Series(label, values, list(places), hollow=index == 0), index)
            axes.plot(values, places, linestyle="none", label=label, markersize=(8.5, 4.5)[index], **look)
        step = max(1, math.ceil(len(rows) / MOST_NAMED))
        axes.set_yticks(list(places)[::step], [_shortened(row[0]) for row in rows][::step])
        axes.set(xlabel=x_label, ylim=(len(rows) - 0.4, -0.6))
        axes.xaxis.set_major_locator(MaxNLocator(5))  # by itself it lets labels of four digits overlap
        axes.grid(axis="y", visible=False)
        _legend(figure, axes)
        return _laid_out(figure)


def histograms(values: Mapping[str, Sequence[float]], *, x_label: str, y_label: str) -> Figure:
    """Overlaid histograms in common bins, an outline for each name."""
    with _styled():
        figure, (axes,) = _figure(1)
        edges = np.histogram_bin_edges(np.concatenate([[], *values.values()]), bins="auto")
        if len(edges) > MOST_BINS + 1:
            edges = np.linspace(edges[0], edges[-1], MOST_BINS + 1)
        for index, (name, each) in enumerate(values.items()):
            counts, colour = np.histogram(each, edges)[0], COLOURS[index % len(COLOURS)]
            if not index:
                axes.stairs(counts, edges, fill=True, color=colour, alpha=0.2)
            axes.stairs(counts, edges, color=colour, linestyle=LINES[index % len(LINES)], linewidth=1.8, label=name)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=x_label, ylabel=y_label)
        _legend(figure, axes)
        return _laid_out(figure)


def bland_altman(
    counts: Mapping[str, tuple[float, float]],
    *,
    mean: float,
    interval: tuple[float, float],
    limits: tuple[float, float],
    x_label: str,
    y_label: str,
) -> Figure:
    """A Bland-Altman plot (1986): for each image, the second count minus the first over the mean of both.

    Lines are the `mean` difference on a band of its `interval`, and the `limits` of agreement. Images with the same
    two numbers share a larger dot.
    """
    places: dict[tuple[float, float], list[str]] = {}
    for name, (first, second) in counts.items():
        if math.isfinite(second - first):
            places.setdefault(((first + second) / 2, second - first), []).append(f"{name}: {first:g}, {second:g}")
    with _styled():
        figure, (axes,) = _figure(1)
        axes.axhline(0, color=FAINT, linewidth=0.8)
        if math.isfinite(interval[0]):
            axes.axhspan(*interval, color=COLOURS[1], alpha=0.2, linewidth=0)
        if math.isfinite(mean):
            axes.axhline(mean, color=COLOURS[1], label=f"mean {format_signed(mean)}")
        if math.isfinite(limits[0]):
            names = f"limits {format_signed(limits[0])} and {format_signed(limits[1])}", None
            for limit, label in zip(limits, names, strict=True):
                axes.axhline(limit, color=INK, linestyle="--", linewidth=1.2, label=label)
        axes.scatter(
            [x for x, _ in places],
            [y for _, y in places],
            [30.0 * len(names) for names in places.values()],
            COLOURS[0],
            edgecolors="#ffffff",
            linewidths=0.6,
            urls=["; ".join(names) for names in places.values()],
            zorder=3,
        )
        axes.margins(0.1)
        axes.use_sticky_edges = False
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=x_label, ylabel=y_label)
        _legend(figure, axes)
        return _laid_out(figure)


def to_scale(rectangles: Mapping[str, tuple[float, float]], circles: Mapping[str, float], *, label: str) -> Figure:
    """Rectangles (height, width) and circles (diameter) with a common centre, on axes in the same unit, `label`."""
    with _styled():
        figure, (axes,) = _figure(1)
        shapes: dict[str, Patch] = {
            **{name: Rectangle((-w / 2, -h / 2), w, h) for name, (h, w) in rectangles.items()},
            **{name: Circle((0, 0), diameter / 2) for name, diameter in circles.items()},
        }
        for index, (name, shape) in enumerate(shapes.items()):
            shape.set(fill=False, edgecolor=COLOURS[index], linestyle=LINES[index], linewidth=1.8, label=name)
            axes.add_patch(shape)
        axes.set(aspect="equal", xlabel=label, ylabel=label)
        axes.autoscale_view()
        _legend(figure, axes)
        return _laid_out(figure)


def encode(figure: Figure, form: Format, **changes: Any) -> bytes:
    """The content of a figure's file, with `changes` of the style; the same figure gives the same bytes."""
    out = io.BytesIO()
    metadata = {"Software": None} if form == "png" else {"Creator": None, "Date": None}
    with _styled(**changes):
        figure.savefig(out, format=form, dpi=DPI, metadata=metadata)
    if form == "png":
        return out.getvalue()
    # matplotlib can attach nothing but a link to a dot: the text of the tooltip travels as a URL, and is turned into a
    # title here.
    return re.sub(
        rb'<a xlink:href="([^"]*)"[^>]*>(.*?)</a>', rb"<g><title>\1</title>\2</g>", out.getvalue(), flags=re.DOTALL
    )


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element of an HTML page that defines CSS_VARIABLES, with its text in the page's font.

    `name` has to be unique in the page: the ids of the figure's elements depend on it.
    """
    # Each of the substitutions makes the element smaller, or fit for a page with several figures: no XML prologue or
    # metadata, no ids that occur in each figure, coordinates with two decimals, colours by CSS variables.
    svg = encode(figure, "svg", **{"svg.fonttype": "none", "svg.hashsalt": name}).decode()
    svg = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[\w.]+">', "<g>", svg)  # these are the same in every figure, and nothing refers to them
    svg = re.sub(r' transform="rotate\(-0 [^"]*"|(?<=>)\s+(?=<)', "", svg)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+|\s*\n", r"\1", found[0]), svg)
    return re.sub(r'style="[^"]*"', _with_variables, svg)


def _with_variables(match: re.Match[str]) -> str:
    return re.sub("#[0-9a-f]{6}", lambda found: f"var({CSS_VARIABLES.get(found[0], '--ink')})", match[0])


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically, as PNG or SVG by the suffix.

    Raises UserError if the suffix is neither.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in ("png", "svg"):
        raise UserError(f"{path}: figures are written as .png or .svg; use one of these suffixes")
    with files.appearing(path) as temporary:
        temporary.write_bytes(encode(figure, "png" if form == "png" else "svg"))


@contextmanager
def _styled(**changes: Any) -> Iterator[None]:
    """Apply STYLE alone within the block, whatever the user's matplotlibrc says."""
    with style.context(["default", STYLE | changes], after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of names; the reader's browser has it
        yield


def _figure(panels: int, aspect: float = 0.66) -> tuple[Figure, list[Axes]]:
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(WIDTH, WIDTH * aspect * panels), layout=layout)
    every_axes = figure.subplots(panels, 1, sharex=True, sharey=True, squeeze=False)
    return figure, [axes for (axes,) in every_axes]


def _laid_out(figure: Figure) -> Figure:
    """Lay out a figure for good."""
    # The constrained layout converges over several draws: with it, each further file would differ by a fraction.
    # Without any, and laid out by no draw of its own, a figure is drawn once for a file instead of three times.
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
    figure.set_layout_engine(None)
    return figure


def _kind(series: Series, index: int) -> int:
    return index if series.look is None else series.look


def _look(series: Series, index: int) -> dict[str, Any]:
    kind = _kind(series, index)
    colour = COLOURS[kind % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[kind % len(MARKERS)],
        "markerfacecolor": "none" if series.hollow else colour,
        "markeredgecolor": colour,
    }


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    if len(entries) > 1:
        columns = 1 if max(map(len, entries)) > 34 else min(2, len(entries))
        figure.legend(entries.values(), entries, loc="outside upper left", ncols=columns)


def _draw_event(axes: Axes, x: float, text: str) -> None:
    axes.axvline(x, color=FAINT, linewidth=0.8)
    left, right = axes.get_xlim()
    side: Literal["left", "right"] = "right" if 2 * x > left + right else "left"
    place = (x, 1.0)
    axes.annotate(text, place, (0, 2), xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha=side)


def _draw_distribution(axes: Axes, place: int, row: Distribution) -> None:
    if row.low is not None and row.high is not None:
        axes.barh(place, row.high - row.low, left=row.low, height=0.6, color=COLOURS[1], alpha=0.25)
    if row.values:
        # Multiples of the golden ratio spread the dots over the height of the row, the same way each time.
        heights = [place + 0.44 * (index * 0.618034 % 1 - 0.5) for index in range(len(row.values))]
        hints = [f"{name}: {format_score(value)}" for name, value in row.values.items()]
        axes.scatter(
            list(row.values.values()),
            heights,
            30,
            COLOURS[0],
            edgecolors="#ffffff",
            linewidths=0.6,
            urls=hints,
            clip_on=False,
        )
    if row.mean is not None:
        axes.vlines(row.mean, place - 0.34, place + 0.34, color=INK, linewidth=2.0)


def _shortened(name: str) -> str:
    """A name shortened to its end, which tells images of one series apart."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def _write(
    axes: Axes,
    text: str,
    point: tuple[float, float],
    offset: tuple[float, float],
    *,
    ha: Literal["left", "center", "right"] = "center",
    va: Literal["top", "center"] = "top",
    size: float = 9.5,
) -> None:
    """Write a text beside a point in data coordinates, `offset` points (1/72 inch) away."""
    axes.annotate(text, point, offset, textcoords="offset points", ha=ha, va=va, fontsize=size)
