"""Drawings with axes: lines over steps, and values along one axis in rows; geometry alone, colours are the page's.

Every line has a dash of its own and its name beside its end, so that nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from yeastexp.report.html import Chart, Label, Stroke, Table
from yeastexp.report.scales import Points, Scale, apart, around, number, spans_decades, thinned
from yeastexp.system.formatting import format_score

WIDTH, HEIGHT = 460.0, 272.0
LEFT, TOP, BOTTOM = 30.0, 14.0, 46.0
LETTER = 6.9
"""Of a name, about so wide at 13 units; a telephone shows a unit as three quarters of a pixel."""
GAP = 14.5
"""Between the names of lines."""
FEW = 25
"""Points that are marked one by one."""
LOOKS = 4
"""Dashes and colours before they begin again."""
LONGEST = 22
"""Letters of a name beside a line or a row."""

SHARE = (0.0, 1.0)
ANY = (-math.inf, math.inf)


@dataclass(frozen=True)
class Line:
    """Points of one name, in order of x; `named` where the name stands beside its end."""

    name: str
    points: Points
    look: int = 0
    named: bool = True
    marked: bool = True
    """Whether its points are, where they are few."""


@dataclass(frozen=True)
class Bar:
    """A row: values of single things by name, and maybe a mean with its interval."""

    name: str
    values: Mapping[str, float]
    mean: float | None = None
    low: float | None = None
    high: float | None = None


def lines(
    name: str,
    title: str,
    drawn: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    marked: tuple[float, str] | None = None,
    within: tuple[float, float] = ANY,
    note: str = "",
    data: Table | None = None,
) -> Chart:
    """Lines over steps; `levels` are constants, `marked` a step with what there is to say about it."""
    values = [y for one in drawn for _, y in one.points]
    levels, beyond = _near(levels or {}, values)
    ends = [(one.name, one.points[-1][1]) for one in drawn if one.named and one.points]
    ends += list(levels.items())
    names = [shortened(text) for text, _ in ends]
    right = WIDTH - 12 - LETTER * max(map(len, names), default=0) - 10 * bool(names)
    values += levels.values()
    y = around(values, HEIGHT - BOTTOM, TOP, logarithmic=spans_decades(values) and within == ANY, within=within)
    left = LEFT + 7 * max((len(number(tick)) for tick in y.ticks(5)), default=0)
    x = _steps([x for one in drawn for x, _ in one.points], left, right)
    strokes, labels = _axes(x, y, x_label, y_label + (", logarithmic" if y.logarithmic else ""), HEIGHT)
    for text, level in levels.items():
        strokes.append(Stroke(f"M{left:.1f} {y(level):.1f}H{right:.1f}", "level", f"{text}: {format_score(level)}"))
    if marked and drawn:
        at = x(marked[0])
        strokes.append(Stroke(f"M{at:.1f} {TOP}V{HEIGHT - BOTTOM}", "marked", marked[1]))
        labels.append(Label(at, TOP - 2, marked[1], "note", "end" if at > (left + right) / 2 else "start"))
    for one in drawn:
        strokes += _line(one, x, y)
    places = [y(value) for _, value in ends]
    for text, place, moved in zip(names, places, apart(places, GAP, TOP, HEIGHT - BOTTOM), strict=True):
        strokes.append(Stroke(f"M{right + 2:.1f} {place:.1f}L{right + 9:.1f} {moved:.1f}", "leader"))
        labels.append(Label(right + 11, moved + 4, text, "name"))
    constants = [f"{text}: {format_score(level)}" for text, level in (levels | beyond).items()]
    said = ". ".join([*map(_told, drawn), *constants])
    note = "; ".join(filter(None, [note, _listed("dotted", levels), _listed("off the chart", beyond)]))
    return Chart(name, title, f"{title}, {y_label} by {x_label}. {said}.", WIDTH, HEIGHT, strokes, labels, note, data)


def _listed(how: str, levels: Mapping[str, float]) -> str:
    return f"{how}: " + ", ".join(f"{text} {format_score(level)}" for text, level in levels.items()) if levels else ""


def _near(levels: Mapping[str, float], values: Sequence[float]) -> tuple[dict[str, float], dict[str, float]]:
    """Constants that leave the values room, and those so far away that they would flatten them."""
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    air = (high - low) or math.inf
    near = {name: level for name, level in levels.items() if low - air <= level <= high + air}
    return near, {name: level for name, level in levels.items() if name not in near}


def _steps(values: Sequence[float], left: float, right: float) -> Scale:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return Scale(min(low, 0.0), high if high > min(low, 0.0) else low + 1.0, left, right)


def _line(one: Line, x: Scale, y: Scale) -> list[Stroke]:
    places = [(x(a), y(b)) for a, b in thinned(one.points)]
    if not places:
        return []
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    found = [Stroke(path, f"line look-{one.look % LOOKS}", one.name)] if len(places) > 1 else []
    if len(places) == 1 or (one.marked and len(places) <= FEW):
        found += [
            Stroke(
                dot(a, b, one.look),
                f"dot look-{one.look % LOOKS}",
                f"{one.name}: {format_score(value)} at {number(step)}",
            )
            for (a, b), (step, value) in zip(places, one.points, strict=True)
        ]
    return found


def dot(x: float, y: float, look: int = 0) -> str:
    """A mark about a place: circle, square, triangle, diamond."""
    r = 3.2
    if look % LOOKS == 0:
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    if look % LOOKS == 1:
        return f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z"
    if look % LOOKS == 2:
        return f"M{x:.1f} {y - 4:.1f}l4 7h-8z"
    return f"M{x:.1f} {y - 4.4:.1f}l4.4 4.4l-4.4 4.4l-4.4 -4.4z"


def _told(one: Line) -> str:
    if not one.points:
        return f"{one.name}: no values"
    (first, begin), (last, end) = one.points[0], one.points[-1]
    if len(one.points) == 1:
        return f"{one.name}: {format_score(begin)} at {number(first)}"
    low, high = min(y for _, y in one.points), max(y for _, y in one.points)
    ends = f"{one.name}: from {format_score(begin)} at {number(first)} to {format_score(end)} at {number(last)}"
    return f"{ends}, between {format_score(low)} and {format_score(high)}"


def bars(
    name: str,
    title: str,
    drawn: Sequence[Bar],
    *,
    x_label: str,
    within: tuple[float, float] = ANY,
    named: Literal["lowest", "highest"] | None = None,
    zero: bool = False,
    note: str = "",
    data: Table | None = None,
) -> Chart:
    """Rows of dots along one axis, with means on their intervals; the lowest or highest is `named`, `zero` drawn."""
    dotted = any(one.values for one in drawn)
    step, right = (60.0, WIDTH - 14) if dotted else (32.0, WIDTH - 60)
    names = [shortened(one.name) for one in drawn]
    left = max(LEFT, 14 + LETTER * max(map(len, names), default=0))
    height = TOP + step * len(drawn) + BOTTOM
    values = [value for one in drawn for value in one.values.values()]
    values += [end for one in drawn for end in (one.mean, one.low, one.high) if end is not None]
    x = around([*values, *([0.0] if zero else [])], left, right, within=within)
    strokes, labels = _axes(x, None, x_label, "", height)
    if zero:
        strokes.append(Stroke(f"M{x(0.0):.1f} {TOP}V{height - BOTTOM}", "marked", "no difference"))
    for index, (one, text) in enumerate(zip(drawn, names, strict=True)):
        middle = TOP + step * (index + 0.5)
        labels.append(Label(left - 8, middle + 4, text, "name", "end"))
        strokes += _bar(one, x, middle, step)
        if named and len(one.values) > 1:
            end = (min if named == "lowest" else max)(one.values, key=lambda key: one.values[key])
            labels.append(_below(x(one.values[end]), middle + step / 2 - 2, shortened(end), left))
        elif one.mean is not None and not dotted:
            labels.append(Label(x(max(one.mean, one.high or one.mean)) + 7, middle + 4, format_score(one.mean), "note"))
    said = ". ".join(map(_told_of_bar, drawn))
    return Chart(name, title, f"{title}, {x_label}. {said}.", WIDTH, height, strokes, labels, note, data)


def _below(x: float, y: float, text: str, left: float) -> Label:
    """A text below a place, to the side where there is more room."""
    return Label(x, y, text, "note", "start" if x < (left + WIDTH) / 2 else "end")


def _bar(one: Bar, x: Scale, middle: float, step: float) -> list[Stroke]:
    found = []
    half = step * 0.25 if one.values else step * 0.2
    if one.low is not None and one.high is not None:
        box = f"M{x(one.low):.1f} {middle - half:.1f}H{x(one.high):.1f}v{2 * half:.1f}H{x(one.low):.1f}z"
        found.append(Stroke(box, "interval", f"95 % interval: {format_score(one.low)} to {format_score(one.high)}"))
    for index, (thing, value) in enumerate(one.values.items()):
        across = middle + half * 0.75 * (2 * (index * 0.618034 % 1) - 1)  # even, and the same each time
        found.append(Stroke(dot(x(value), across), "dot look-0", f"{thing}: {format_score(value)}"))
    if one.mean is not None:
        at = f"M{x(one.mean):.1f} {middle - half - 2:.1f}v{2 * half + 4:.1f}"
        found.append(Stroke(at, "mean", f"mean: {format_score(one.mean)}"))
    return found


def _told_of_bar(one: Bar) -> str:
    said = [] if one.mean is None else [f"mean {format_score(one.mean)}"]
    if one.low is not None and one.high is not None:
        said.append(f"95 % interval {format_score(one.low)} to {format_score(one.high)}")
    if one.values:
        least, most = (pick(one.values.values()) for pick in (min, max))
        said.append(f"{len(one.values)} values from {format_score(least)} to {format_score(most)}")
    return f"{one.name}: {', '.join(said) or 'no values'}"


def pairs(
    name: str,
    title: str,
    rows: Sequence[tuple[str, float, float]],
    *,
    ends: tuple[str, str],
    x_label: str,
    within: tuple[float, float] = ANY,
    note: str = "",
) -> Chart:
    """Two values of each thing joined by a line, a row each, in the order given."""
    left = max(LEFT, 14 + LETTER * max((len(shortened(one)) for one, *_ in rows), default=0))
    step = 17.0
    top = TOP + 18
    height = top + step * len(rows) + BOTTOM
    x = around([value for _, *both in rows for value in both], left, WIDTH - 14, within=within)
    strokes, labels = _axes(x, None, x_label, "", height)
    for index, (thing, one, other) in enumerate(rows):
        y = top + step * (index + 0.5)
        said = f"{thing}: {format_score(one)} to {format_score(other)}"
        labels.append(Label(left - 8, y + 4, shortened(thing), "tick", "end"))
        strokes.append(Stroke(f"M{x(one):.1f} {y:.1f}H{x(other):.1f}", "join", said))
        strokes.append(Stroke(dot(x(one), y), "ring look-0", said))
        strokes.append(Stroke(dot(x(other), y, 1), "dot look-1", said))
    strokes += [Stroke(dot(left + 4, TOP), "ring look-0"), Stroke(dot((left + WIDTH) / 2, TOP, 1), "dot look-1")]
    for text, at in zip(ends, (left + 12, (left + WIDTH) / 2 + 8), strict=True):
        labels.append(Label(at, TOP + 4, shortened(text), "name"))
    up, down = (sum(1 for _, a, b in rows if sign * (b - a) > 0) for sign in (1, -1))
    said = f"{title}: {x_label} of {len(rows)} images under {ends[0]} and {ends[1]}; {up} rise, {down} fall."
    return Chart(name, title, said, WIDTH, height, strokes, labels, note)


def _axes(x: Scale, y: Scale | None, x_label: str, y_label: str, height: float) -> tuple[list[Stroke], list[Label]]:
    floor = height - BOTTOM
    strokes, labels = [], []
    for tick in x.ticks(5):
        at = x(tick)
        strokes.append(Stroke(f"M{at:.1f} {floor}v5" if y else f"M{at:.1f} {TOP}V{floor + 5}", "axis" if y else "grid"))
        labels.append(Label(at, floor + 18, number(tick), anchor="middle"))
    for tick in y.ticks(5) if y else ():
        assert y
        strokes.append(Stroke(f"M{x.start:.1f} {y(tick):.1f}H{x.end:.1f}", "grid"))
        labels.append(Label(x.start - 7, y(tick) + 4, number(tick), anchor="end"))
    strokes.append(Stroke(f"M{x.start:.1f} {floor}H{x.end:.1f}", "axis"))
    labels.append(Label((x.start + x.end) / 2, height - 8, x_label, "axis-name", "middle"))
    if y_label:
        labels.append(Label(13, (TOP + floor) / 2, y_label, "axis-name", "middle", turned=True))
    return strokes, labels


def shortened(name: str) -> str:
    """A name as there is room for it: its end, which tells images apart."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
