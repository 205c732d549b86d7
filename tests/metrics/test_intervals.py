"""Means with intervals, and differences of pairs: closed forms, another library, and coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from yeastexp.metrics.intervals import agreement, half_width, holm, interval, paired, sign_flip_p


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


def test_an_interval_ends_where_its_values_have_to() -> None:
    """0.97 ± 4.3027 · 0.0520 / √3 passes 1; what is cut off never holds the mean, so coverage stays as it is."""
    values = [1.0, 1.0, 0.91]
    free, cut = interval(values), interval(values, within=(0, 1))
    assert free.high == pytest.approx(0.97 + 4.302652729911275 * math.sqrt(0.0027) / math.sqrt(3)) and free.high > 1
    assert (cut.mean, cut.low, cut.high, cut.images) == (free.mean, free.low, 1, 3)
    assert interval([0.0, 0.0, 0.3], within=(0, 1)).low == 0
    assert math.isnan(interval([0.5], within=(0, 1)).high)


SKEWED = {"IoUs about 0.8": (8, 2), "about 0.91": (20, 2), "about 0.96": (50, 2), "many of them 1": (2, 0.5)}


def held(draws: np.ndarray, mean: float) -> float:
    """The share of the rows whose interval holds the mean they were drawn about; no interval leaves 0 to 1."""
    found = [interval(row, within=(0, 1)) for row in draws.tolist()]
    assert all(one.low >= 0 and one.high <= 1 for one in found)
    return float(np.mean([one.low <= mean <= one.high for one in found]))


@pytest.mark.parametrize("name", SKEWED)
def test_of_a_hundred_intervals_of_18_skewed_scores_about_95_hold_the_mean(name: str) -> None:
    """With 100,000 draws it is 0.931 to 0.941; 4,000 are within 0.01 of that."""
    a, b = SKEWED[name]
    draws = np.random.default_rng(0).beta(a, b, (4_000, 18))
    assert 0.92 <= held(draws, a / (a + b)) <= 0.97


def test_fewer_do_where_one_image_in_ten_fails() -> None:
    """A limit of the method: 18 images may hold no failure. With 100,000 draws it is 0.810."""
    source = np.random.default_rng(0)
    good, bad = source.beta(30, 2, (4_000, 18)), source.beta(3, 3, (4_000, 18))
    draws = np.where(source.random((4_000, 18)) < 0.1, bad, good)
    assert held(draws, 0.9 * 30 / 32 + 0.1 * 0.5) == pytest.approx(0.81, abs=0.02)


def test_the_difference_of_pairs_is_that_of_a_paired_t_test() -> None:
    source = np.random.default_rng(1)
    one, other = source.beta(8, 2, (2, 18))
    found = paired(one.tolist(), other.tolist())
    wanted = stats.ttest_rel(other, one).confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert found.difference.mean == pytest.approx(float(np.mean(other - one)), abs=1e-15)


@pytest.mark.parametrize("counts", [(2, 2), (3, 3), (3, 8)])
def test_the_difference_of_two_means_is_welchs(counts: tuple[int, int]) -> None:
    source = np.random.default_rng(sum(counts))
    samples = [source.normal(0, spread, count) for spread, count in zip((1, 3), counts, strict=True)]
    wanted = stats.ttest_ind(*samples, equal_var=False).confidence_interval(0.95)
    errors = [float(stats.sem(each)) for each in samples]
    assert half_width(errors, counts) == pytest.approx((wanted.high - wanted.low) / 2)
    assert half_width([0.0, 0.0], counts) == 0 and math.isnan(half_width(errors, (1, 2)))


def test_sign_flips_by_hand() -> None:
    """Of the sums ±1 ±2 ±4 two are as far from 0 as 7, four as 5 or more, and all but two as 3 or more."""
    assert sign_flip_p([1, 2, 4]) == 2 / 8
    assert sign_flip_p([-1, 2, 4]) == 4 / 8
    assert sign_flip_p([1, -2, 4]) == 6 / 8
    assert sign_flip_p([1, 2, -4]) == 1
    assert sign_flip_p([0.3]) == sign_flip_p([]) == sign_flip_p([0, 0]) == 1


@pytest.mark.parametrize("count", [2, 5, 10, 18, 20])
def test_differences_of_one_size_have_the_p_of_the_binomial(count: int) -> None:
    """A closed form: with k of n differences above 0, it is the sign test of k heads in n throws."""
    for above in range(count + 1):
        p = sign_flip_p([0.1] * above + [-0.1] * (count - above))
        assert p == pytest.approx(stats.binomtest(above, count).pvalue, rel=1e-12)


@pytest.mark.parametrize("count", [3, 8, 12])
def test_sign_flips_are_scipys_permutations_of_pairs(count: int) -> None:
    source = np.random.default_rng(count)
    one, other = source.beta(8, 2, (2, count)).round(2)
    wanted = stats.permutation_test(
        (one, other), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", vectorized=True
    )
    found = paired(one.tolist(), other.tolist())
    assert found.p == pytest.approx(wanted.pvalue, abs=1e-12)
    assert found.exact and found.smallest_p == 2 / 2**count


def test_differences_that_are_0_flip_nothing() -> None:
    assert sign_flip_p([1, 2, 4, *[0] * 40]) == sign_flip_p([1, 2, 4])


def test_many_differences_are_flipped_by_draws_that_agree_with_the_closed_form() -> None:
    """60 differences of one size, 40 above 0: the binomial says 0.0135, and p of 99,999 draws is near."""
    found = paired([0.0] * 60, [0.1] * 40 + [-0.1] * 20)
    assert not found.exact and found.smallest_p == 1 / 100_000
    assert found.p == pytest.approx(stats.binomtest(40, 60).pvalue, abs=0.0011)
    assert sign_flip_p([0.1] * 60) == 1 / 100_000
    assert sign_flip_p([0.1, -0.1] * 30) == 1


def test_p_is_the_same_in_every_order() -> None:
    source = np.random.default_rng(0)
    for count in (15, 30):
        values = source.normal(0.3, 1, count).tolist()
        assert len({sign_flip_p(source.permutation(values).tolist()) for _ in range(5)}) == 1


def test_p_is_uniform_where_nothing_differs() -> None:
    """Of 2,000 tests of 8 pairs drawn alike, as many have p ≤ 0.05 as exactness says: 6 of 128 sums, within 0.015."""
    draws = np.random.default_rng(0).normal(size=(2000, 8))
    below = np.mean([sign_flip_p(row) <= 0.05 for row in draws.tolist()])
    assert below == pytest.approx(6 / 128, abs=0.015)


def test_pairs_that_lack_a_value_are_left_out() -> None:
    found = paired([0.5, math.nan, 0.7, 0.9], [0.6, 0.8, math.nan, 0.8])
    assert found == paired([0.5, 0.9], [0.6, 0.8]) and found.difference.images == 2
    none = paired([math.nan], [1.0])
    assert none.difference.images == 0 and math.isnan(none.p) and math.isnan(none.smallest_p)


def test_holm_by_hand() -> None:
    """The least times 3, the next times 2, the last as it is, never less than the one before, and none above 1."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([0.02]) == [0.02] and holm([]) == []
    left = holm([0.01, math.nan, 0.03])
    assert left[0] == 0.02 and math.isnan(left[1]) and left[2] == 0.03


def test_limits_of_agreement_by_hand() -> None:
    """Differences -2, 0 and 2: mean 0, standard deviation 2; a pair without a number is left out."""
    found = agreement([10, 5, 7, math.nan], [8, 5, 9, 3])
    assert (found.difference.mean, found.difference.images) == (0, 3)
    assert (found.low, found.high) == (-1.96 * 2, 1.96 * 2)
    assert found.difference.high == pytest.approx(4.302652729911275 * 2 / math.sqrt(3))
    single = agreement([4], [6])
    assert single.difference.mean == 2 and math.isnan(single.low) and math.isnan(single.difference.low)
    assert math.isnan(agreement([], []).difference.mean)
