"""From values to places in a drawing: linear and logarithmic scales, round ticks, and labels that keep apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)

MOST_POINTS = 600
"""Of a line; a longer one is drawn with the extremes of as many stretches, which looks the same."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` at places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (
            (math.log(self.low), math.log(self.high), math.log(value))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        """Round values within it, about so many."""
        if self.logarithmic:
            return _powers(self.low, self.high, about)
        step = _step(self.high - self.low, about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def _step(span: float, about: int) -> float:
    power = 10.0 ** math.floor(math.log10(span / about))
    return next(one * power for one in STEPS if one * power * about >= span * 0.999)


def _powers(low: float, high: float, about: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits]
        within = [one for one in found if low * 0.999 <= one <= high * 1.001]
        if len(within) <= about + 2:
            return within
    return within[:: -(-len(within) // about)]


def around(
    values: Sequence[float], start: float, end: float, *, logarithmic: bool = False, within: tuple[float, float]
) -> Scale:
    """A scale with some air about the values, which does not go beyond `within` unless they do."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if logarithmic:
        return Scale(low / 1.15, high * 1.15, start, end, logarithmic=True)
    span = high - low or abs(high) * 0.2 or 1.0
    least, most = min(within[0], low), max(within[1], high)
    return Scale(max(low - 0.06 * span, least), min(high + 0.06 * span, most), start, end)


def spans_decades(values: Sequence[float]) -> bool:
    """Whether values are better shown by powers of ten."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 30


def number(value: float) -> str:
    """A tick's text."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e").replace("-", "−")
    return f"{round(value, 9):,.10g}".replace("-", "−")


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved as little as need be so that neighbours keep a gap, in the order given, between two ends."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [0.0] * len(places)
    at = low
    for index in order:
        moved[index] = max(places[index], at)
        at = moved[index] + gap
    at = high
    for index in reversed(order):
        moved[index] = min(moved[index], at)
        at = moved[index] - gap
    return moved


def thinned(points: Points) -> Points:
    """The points of a line, or of a long one the first, lowest, highest and last of each stretch."""
    if len(points) <= MOST_POINTS:
        return points
    kept: Points = []
    for part in np.array_split(np.arange(len(points)), MOST_POINTS // 4):
        some = [points[index] for index in part]
        ends = {some[0], some[-1], min(some, key=lambda one: one[1]), max(some, key=lambda one: one[1])}
        kept += sorted(ends)
    return kept
