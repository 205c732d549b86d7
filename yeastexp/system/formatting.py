"""Numbers as text: the same in tables, messages, captions and pages."""

from __future__ import annotations

import math
from collections.abc import Callable

ABSENT = "–"
"""The text in place of a missing value."""


def format_score(value: float | None) -> str:
    """Return a score or loss with four decimals, or with four digits if it is 10 or more."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:.4f}" if abs(value) < 10 else format_number(value)


def format_interval(low: float | None, high: float | None, form: Callable[[float | None], str] = format_score) -> str:
    """Return the interval of a score as text."""
    return ABSENT if ABSENT in (ends := (form(low), form(high))) else " – ".join(ends)


def format_p(p: float) -> str:
    """Return a p value with four decimals, or one digit if it is below 0.0001."""
    return ABSENT if math.isnan(p) else f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def format_difference(value: float, low: float, high: float) -> str:
    """Return a difference of scores with its sign, and decimals that show two digits of its interval's width."""
    width = high - low
    decimals = min(8, max(4, 1 - math.floor(math.log10(width / 2)))) if width > 0 else 4
    return ABSENT if math.isnan(value) else f"{value:+z.{decimals}f}"


def format_difference_interval(low: float, high: float) -> str:
    """Return the interval of a difference of scores as text."""
    return ABSENT if math.isnan(low) else f"{format_difference(low, low, high)} to {format_difference(high, low, high)}"


def format_number(value: float | None, digits: int = 4, scale: float = 0.0) -> str:
    """Return a number to `digits` digits, whole numbers in full, and 0 for less than a thousandth of `scale`."""
    if value is None:
        return ABSENT
    value = 0.0 if abs(value) < scale / 1000 else float(value)
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def format_count(number: int, noun: str) -> str:
    """Return a number with a noun, as '1 image' or '3,000 images'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_signed(value: float, digits: int = 3) -> str:
    """Return a difference of counts with its sign, to `digits` digits."""
    if math.isnan(value):
        return ABSENT
    text = format_number(value, digits)
    return text if value < 0 or float(text.replace(",", "")) == 0 else f"+{text}"


def format_share(part: float) -> str:
    """Return a share in per cent, with enough digits to tell it from 0 % and from 100 %."""
    percent = 100 * part
    if 0 < percent < 0.01:
        return "less than 0.01 %"
    if 99.9 <= percent < 100:
        return "more than 99.9 %"
    return f"{percent:.2f} %" if percent < 1 else f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def format_bytes(size: float) -> str:
    """Return a number of bytes in units of powers of 1000, as '12.3 MB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
