"""Means with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Interval:
    """A mean over `images` values with its two-sided 95 % t-interval; NaN where there are too few."""

    mean: float
    low: float
    high: float
    images: int


def interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean of the values that are no NaN: mean ± t(0.975, n - 1) · s / √n."""
    # Sorted, so that rounding does not depend on the order of images.
    kept = np.array(sorted(value for value in values if not np.isnan(value)), dtype=np.float64)
    if len(kept) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(kept.mean())
    if len(kept) == 1:
        return Interval(mean, np.nan, np.nan, 1)
    half = float(special.stdtrit(len(kept) - 1, 0.975) * kept.std(ddof=1) / np.sqrt(len(kept)))
    return Interval(mean, mean - half, mean + half, len(kept))
