"""Numbers as text: the same in tables, messages, captions and pages."""

from __future__ import annotations

import math
from collections.abc import Callable

ABSENT = "–"
"""What stands where there is no value."""


def format_score(value: float | None) -> str:
    """A score or loss with four decimals, or four digits from 10 on."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:.4f}" if abs(value) < 10 else format_number(value)


def format_interval(low: float | None, high: float | None, form: Callable[[float | None], str] = format_score) -> str:
    """The interval of a score."""
    return ABSENT if ABSENT in (ends := (form(low), form(high))) else " – ".join(ends)


def format_p(p: float) -> str:
    """A p value."""
    return ABSENT if math.isnan(p) else f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def format_difference(value: float, low: float, high: float) -> str:
    """A difference of scores with its sign, and as many digits as show two of the width of its interval."""
    width = high - low
    decimals = min(8, max(4, 1 - math.floor(math.log10(width / 2)))) if width > 0 else 4
    return ABSENT if math.isnan(value) else f"{value:+z.{decimals}f}"


def format_difference_interval(low: float, high: float) -> str:
    """The interval of a difference of scores."""
    return ABSENT if math.isnan(low) else f"{format_difference(low, low, high)} to {format_difference(high, low, high)}"


def format_number(value: float | None, digits: int = 4, scale: float = 0.0) -> str:
    """A value of any kind to some digits, none of a whole number lost; 0 if less than a thousandth of a scale."""
    if value is None:
        return ABSENT
    value = 0.0 if abs(value) < scale / 1000 else float(value)
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def format_count(number: int, noun: str) -> str:
    """As '1 image' or '3,000 images'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_signed(value: float, digits: int = 3) -> str:
    """A difference of counts with its sign, to some digits."""
    if math.isnan(value):
        return ABSENT
    text = format_number(value, digits)
    return text if value < 0 or float(text.replace(",", "")) == 0 else f"+{text}"


def format_share(part: float) -> str:
    """A share in per cent, with as many digits as tell it from none and from all."""
    percent = 100 * part
    if 0 < percent < 0.01:
        return "less than 0.01 %"
    if 99.9 <= percent < 100:
        return "more than 99.9 %"
    return f"{percent:.2f} %" if percent < 1 else f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def format_bytes(size: float) -> str:
    """A number of bytes in powers of 1000, as '12.3 MB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
