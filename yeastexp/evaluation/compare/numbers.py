"""Numbers of a comparison, as people read them."""

from __future__ import annotations

import math

from yeastexp.metrics.intervals import Interval

ABSENT = "–"
"""Where there is no number."""


def shown_p(p: float) -> str:
    """A p value as tables show it."""
    return ABSENT if math.isnan(p) else f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def number(value: float) -> str:
    """A score."""
    return ABSENT if math.isnan(value) else f"{value:.4f}"


def range_of(found: Interval) -> str:
    """The interval of a mean of scores."""
    return f"{number(found.low)} – {number(found.high)}" if found.images > 1 else ABSENT


def signed(value: float, within: Interval) -> str:
    """A difference with as many digits as show two of its interval's width."""
    width = within.high - within.low
    digits = min(8, max(4, 1 - math.floor(math.log10(width / 2)))) if width > 0 else 4
    return ABSENT if math.isnan(value) else f"{value:+z.{digits}f}"


def signed_range(found: Interval) -> str:
    """The interval of a mean difference."""
    return f"{signed(found.low, found)} to {signed(found.high, found)}" if found.images > 1 else ABSENT
