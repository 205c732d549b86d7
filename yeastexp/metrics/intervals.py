"""Means with intervals, and whether the differences of pairs have a direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Values = npt.NDArray[np.float64]

LARGEST_EXACT = 20
"""Differences whose signs are flipped in all ways; half a million of them."""

FLIPS = 99_999
"""Drawn where there are more differences: p is then known to within 0.0014 about 0.05."""

FLIPS_AT_ONCE = 4096


@dataclass(frozen=True)
class Interval:
    """A mean over `images` values with its two-sided 95 % t-interval; NaN where there are too few."""

    mean: float
    low: float
    high: float
    images: int


def interval(values: Sequence[float], within: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Student's interval of the mean of the values that are no NaN: mean ± t(0.975, n - 1) · s / √n.

    It is cut to `within`, where the mean has to lie: what is cut off never holds it, so that coverage stays as it is.
    Of 18 skewed scores (Beta distributions) 93 to 94 % of the intervals hold the mean; of scores that fail in one
    image in ten, 81 %.
    """
    kept = _numbers(values)
    if len(kept) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(kept.mean())
    if len(kept) == 1:
        return Interval(mean, np.nan, np.nan, 1)
    half = float(special.stdtrit(len(kept) - 1, 0.975) * kept.std(ddof=1) / np.sqrt(len(kept)))
    return Interval(mean, max(mean - half, within[0]), min(mean + half, within[1]), len(kept))


@dataclass(frozen=True)
class Paired:
    """The mean of the differences of pairs with its interval, and p of the sign-flip test.

    `smallest_p` is the least that so many pairs can give, whatever their differences. With no pair all are NaN.
    """

    difference: Interval
    p: float
    smallest_p: float
    exact: bool


def paired(one: Sequence[float], other: Sequence[float]) -> Paired:
    """How `other` differs from `one`, pair by pair; pairs that lack a value are left out."""
    differences = _numbers([b - a for a, b in zip(one, other, strict=True)])
    count = len(differences)
    if not count:
        return Paired(interval([]), math.nan, math.nan, True)
    exact = bool(np.count_nonzero(differences) <= LARGEST_EXACT)
    smallest = 2.0 ** (1 - count) if exact else 1 / (FLIPS + 1)
    return Paired(interval(differences.tolist()), sign_flip_p(differences.tolist()), smallest, exact)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p: the share of sign flips whose sum is at least as far from 0 as that of the differences as they are.

    Were both of a pair alike, each difference would be as likely with the other sign (Fisher 1935, The Design of
    Experiments, §21). All flips are counted for up to `LARGEST_EXACT` differences, without those that are 0; else
    `FLIPS` are drawn, the same for any order, and p = (1 + as far) / (1 + drawn) (Phipson and Smyth 2010, SAGMB 9).
    """
    kept = _numbers(differences)
    kept = kept[kept != 0]
    # Sums that differ by rounding alone count as the same.
    observed = abs(float(kept.sum())) - 1e-12 * float(np.abs(kept).sum())
    if len(kept) <= LARGEST_EXACT:
        return float(np.mean(np.abs(_all_sums(kept)) >= observed))
    return (1 + _drawn_as_far(kept, observed)) / (1 + FLIPS)


def _all_sums(differences: Values) -> Values:
    """The sums of all flips up to their sign: that of the first difference is left as it is."""
    sums = differences[:1] if len(differences) else np.zeros(1)
    for one in differences[1:]:
        sums = np.concatenate([sums + one, sums - one])
    return sums


def _drawn_as_far(differences: Values, observed: float) -> int:
    source = np.random.Generator(np.random.Philox(0))
    found = 0
    for first in range(0, FLIPS, FLIPS_AT_ONCE):
        size = min(FLIPS_AT_ONCE, FLIPS - first), len(differences)
        signs = 2.0 * source.integers(0, 2, size, dtype=np.int8) - 1
        sums = signs @ differences
        found += int(np.count_nonzero(np.abs(sums) >= observed))
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for their number: the chance of any false finding stays what one alone has (Holm 1979).

    NaN stay NaN and are not counted.
    """
    order = sorted((index for index, p in enumerate(ps) if not math.isnan(p)), key=lambda index: ps[index])
    adjusted = [math.nan] * len(ps)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * ps[index]))
        adjusted[index] = largest
    return adjusted


def _numbers(values: Sequence[float]) -> Values:
    """Those that are no NaN, sorted: rounding must not depend on the order of images."""
    return np.array(sorted(value for value in values if not math.isnan(value)), dtype=np.float64)
