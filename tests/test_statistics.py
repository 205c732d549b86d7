"""Means with intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from yeastexp.statistics import interval


@pytest.mark.parametrize("count", [2, 3, 5, 18, 100])
def test_students_interval(count: int) -> None:
    values = np.random.default_rng(count).beta(8, 2, count)
    found = interval(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high), abs=1e-12)
    assert found.images == count


def test_by_hand() -> None:
    """Mean 2, standard deviation 1, t(0.975, 2) = 4.3027."""
    found = interval([1.0, 2.0, 3.0])
    assert found.high - found.mean == pytest.approx(4.302652729911275 / math.sqrt(3))


def test_the_same_bits_in_every_order() -> None:
    source = np.random.default_rng(0)
    values = [*source.random(40).tolist(), math.nan]
    assert len({interval(source.permutation(values).tolist()) for _ in range(30)}) == 1


def test_equal_values_have_an_interval_without_width() -> None:
    found = interval([0.25] * 7)
    assert (found.mean, found.low, found.high, found.images) == (0.25, 0.25, 0.25, 7)


def test_values_that_are_none_are_left_out() -> None:
    assert interval([math.nan, 1.0, math.nan, 2.0, 3.0]) == interval([3.0, 1.0, 2.0])


def test_too_few_values_have_no_interval() -> None:
    one = interval([0.5, math.nan])
    assert one.mean == 0.5 and math.isnan(one.low) and one.images == 1
    none = interval([math.nan])
    assert math.isnan(none.mean) and none.images == 0
