"""Shapes of regions: closed forms, and the hulls of scikit-image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from skimage.morphology import convex_hull_image

from yeastexp.metrics import regions


def sums(points: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
    """The area (1,), first (1, 2) and second (1, 3) moments of pixels (n, 2)."""
    row, column = points.T
    second = np.stack([row**2, column**2, row * column], axis=1).sum(axis=0)
    return np.array([len(points)]), points.sum(axis=0)[None], second[None]


@pytest.mark.parametrize("direction", [(0, 1), (1, 0), (1, 1), (1, -1), (2, 3)])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_line_has_no_minor_axis(direction: tuple[int, int], count: int) -> None:
    points = np.arange(count)[:, None] * np.array(direction) + 100
    major, minor, eccentricity = regions.ellipse_axes(*sums(points))
    assert major[0] == pytest.approx(4 * math.hypot(*direction) * math.sqrt((count**2 - 1) / 12), rel=1e-14)
    assert minor[0] == pytest.approx(0, abs=1e-6) and eccentricity[0] == (count > 1)


def test_axes_of_a_rectangle() -> None:
    major, minor, eccentricity = regions.ellipse_axes(*sums(np.argwhere(np.ones((5, 9)))))
    assert (major[0], minor[0]) == pytest.approx((4 * math.sqrt(80 / 12), 4 * math.sqrt(24 / 12)), rel=1e-15)
    assert eccentricity[0] == pytest.approx(math.sqrt(1 - 24 / 80), rel=1e-15)


@pytest.mark.parametrize("far", [10**5, 4 * 10**9])
def test_axes_do_not_depend_on_the_place(far: int) -> None:
    """Not even where the sums of squares are beyond 64 bits."""
    points = np.argwhere(np.random.default_rng(0).random((20, 30)) > 0.5)
    assert regions.ellipse_axes(*sums(points + far)) == regions.ellipse_axes(*sums(points))


def hull_area(mask: npt.NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    points = np.stack([np.repeat([0, 1], len(rows)), np.tile(rows, 2), np.concatenate([last, -first])])
    return int(regions.convex_areas(1, *points[:, regions.hull_vertices(*points)])[0])


@pytest.mark.parametrize("seed", range(200))
def test_pixels_of_a_convex_hull(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random(generator.integers(1, 60, 2)) < generator.choice([0.003, 0.03, 0.3])
    mask[tuple(generator.integers(0, mask.shape))] = True
    assert hull_area(mask) == convex_hull_image(mask).sum()


def test_vertices_of_an_arc_below_a_peak() -> None:
    """Where each point comes below a line only after the one before it has gone."""
    row = np.arange(2000)
    value = np.sqrt(row * (1999 - row)).astype(np.int64)
    value[0] = 10**5
    kept = regions.hull_vertices(np.zeros(2000, np.int64), row, value)
    assert kept.tolist() == [0, 1999]


def test_the_perimeter_of_a_square() -> None:
    """Its outline goes through the centres of its border pixels."""
    classes = regions.PERIMETER_CLASSES[[0, 0], [2, 2]]
    assert regions.perimeter(np.bincount(np.repeat(classes, 8), minlength=4)[None, 1:]).tolist() == [16]
    assert regions.perimeter(np.array([[1, 2, 3]])).tolist() == [1 + 2 * math.sqrt(2) + 1.5 * (1 + math.sqrt(2))]
