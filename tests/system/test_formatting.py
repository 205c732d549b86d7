"""Numbers as text: every digit that matters, none that does not."""

from __future__ import annotations

import math

import pytest

from yeastexp.system.formatting import (
    format_bytes,
    format_count,
    format_difference,
    format_difference_interval,
    format_interval,
    format_number,
    format_p,
    format_score,
    format_share,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (0.5, "0.5000"), (-0.12345, "-0.1235"), (1, "1.0000"), (12.3456, "12.35")],
)
def test_scores(value: float | None, text: str) -> None:
    assert format_score(value) == text


def test_intervals_with_an_end_missing_are_absent() -> None:
    assert format_interval(0.25, 0.75) == "0.2500 – 0.7500"
    assert format_interval(None, 0.75) == format_interval(math.nan, math.nan) == "–"


@pytest.mark.parametrize(("p", "text"), [(math.nan, "–"), (1, "1.0000"), (0.00012, "0.0001"), (0.00002, "2e-05")])
def test_p_values(p: float, text: str) -> None:
    assert format_p(p) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((0.0123, -0.01, 0.03), "+0.0123"),
        ((0.0000123, 0.00001, 0.00002), "+0.0000123"),
        ((-0.00001, -0.01, 0.01), "+0.0000"),
        ((0.25, math.nan, math.nan), "+0.2500"),
        ((math.nan, math.nan, math.nan), "–"),
    ],
)
def test_differences_have_as_many_digits_as_their_interval_is_wide(ends: tuple[float, float, float], text: str) -> None:
    assert format_difference(*ends) == text


def test_intervals_of_differences() -> None:
    assert format_difference_interval(-0.01, 0.02) == "-0.0100 to +0.0200"
    assert format_difference_interval(math.nan, math.nan) == "–"


@pytest.mark.parametrize(
    ("value", "digits", "scale", "text"),
    [
        (None, 4, 0, "–"),
        (3.0, 4, 0, "3"),
        (0.25, 4, 0, "0.25"),
        (65535.0, 4, 0, "65,535"),
        (12.3456, 4, 0, "12.35"),
        (3.3e-5, 4, 0, "3.3e-05"),
        (math.inf, 4, 0, "inf"),
        (math.nan, 4, 0, "nan"),
        (0.0, 3, 0, "0"),
        (1e-7, 3, 0, "1e-07"),
        (-1e-7, 3, 8.0, "0"),
        (0.125, 3, 1.0, "0.125"),
        (-2.456, 3, 0, "-2.46"),
        (1234.6, 3, 0, "1,235"),
    ],
)
def test_numbers(value: float | None, digits: int, scale: float, text: str) -> None:
    assert format_number(value, digits, scale) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 images"), (1, "1 image"), (3000, "3,000 images")])
def test_counts(count: int, text: str) -> None:
    assert format_count(count, "image") == text


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0, "0.00 %"),
        (1e-9, "less than 0.01 %"),
        (0.001, "0.10 %"),
        (0.05, "5.0 %"),
        (0.5, "50 %"),
        (0.9999, "more than 99.9 %"),
        (1, "100 %"),
    ],
)
def test_shares_are_told_from_none_and_from_all(part: float, text: str) -> None:
    assert format_share(part) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1234, "1.23 kB"),
        (999_999, "1 MB"),
        (12_040_000, "12 MB"),
        (4e9, "4 GB"),
        (5.5e12, "5.5 TB"),
    ],
)
def test_sizes_in_bytes(size: float, text: str) -> None:
    assert format_bytes(size) == text
