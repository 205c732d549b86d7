"""Shape measurements of many regions at once, from integer sums over their pixels; equal to skimage's `regionprops`.

Sums of integers do not depend on the order of pixels, so that pieces of a large image can be added in any order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def _perimeter_classes() -> npt.NDArray[np.uint8]:
    """The class of a border pixel by its border pixels among the (diagonal, 4-)neighbours, (5, 5); 0 adds no length."""
    classes = np.zeros((5, 5), np.uint8)
    classes[:3, 2:4] = 1
    classes[[2, 3], [0, 1]] = 2
    classes[[1, 2], [1, 1]] = 3
    return classes


PERIMETER_LENGTHS = (1, math.sqrt(2), (1 + math.sqrt(2)) / 2)
PERIMETER_CLASSES = _perimeter_classes()


def perimeter(classes: Integers) -> Floats:
    """The length (n,) of the outlines of n regions, from the numbers of their border pixels of each class, (n, 3).

    Border pixels have a 4-neighbour of another label. Benkrid and Crookes (2000), as in `skimage.measure.perimeter`.
    """
    return np.asarray(classes @ np.array(PERIMETER_LENGTHS))


def ellipse_axes(area: Integers, first: Integers, second: Integers) -> tuple[Floats, Floats, Floats]:
    """Major and minor axis of the ellipses of equal second moments, and their eccentricity, each (n,).

    `first` (n, 2) holds the sums of rows r and columns c, `second` (n, 3) those of r², c² and rc. With the eigenvalues
    λ₁ ≥ λ₂ of the covariance of (r, c) the axes are 4√λ₁ and 4√λ₂, and the eccentricity is √(1 - λ₂/λ₁).
    """
    # Sums about the pixel next to the centroid are exact integers, even if those about the image's corner overflow:
    # they wrap around, and so does what is subtracted. Floats begin where no large numbers cancel any more.
    near = (2 * first + area[:, None]) // (2 * area[:, None])
    mean = (first - area[:, None] * near) / area[:, None]
    one, other = [0, 1, 0], [0, 1, 1]  # the factors of r², c² and rc
    crossed = near[:, one] * first[:, other] + near[:, other] * first[:, one]
    about = second - crossed + area[:, None] * near[:, one] * near[:, other]
    rows, columns, both = (about / area[:, None] - mean[:, one] * mean[:, other]).T
    larger = (rows + columns + np.hypot(rows - columns, 2 * both)) / 2
    # The smaller eigenvalue is the determinant over the larger: as a difference of the two terms it would be lost to
    # cancellation in thin regions, and could be negative for straight lines.
    divisor = np.where(larger > 0, larger, 1)
    smaller = np.clip((rows * columns - both**2) / divisor, 0, larger)
    return 4 * np.sqrt(larger), 4 * np.sqrt(smaller), np.where(larger > 0, np.sqrt(1 - smaller / divisor), 0)


def hull_vertices(group: Integers, row: Integers, value: Integers) -> Integers:
    """The indices of the points that are vertices of their group's upper convex hull, ascending.

    Points (n,) each are sorted by group, then by row; a group has at most one point in a row.
    """
    # Not one group after the other: all groups are thinned out together, in as many passes as the slowest of them
    # needs. A group that loses no point in a pass is convex, and is not looked at again.
    todo, settled = np.arange(len(group)), [np.empty(0, np.int64)]
    while todo.size:
        g, r, v = group[todo], row[todo], value[todo]
        # A point on or below the line between its neighbours is no vertex, whether or not these are: all go at once.
        # The ends of a group have a neighbour of another group, and always stay.
        below = (v[1:-1] - v[:-2]) * (r[2:] - r[:-2]) <= (v[2:] - v[:-2]) * (r[1:-1] - r[:-2])
        goes = np.zeros(len(todo), bool)
        goes[1:-1] = below & (g[:-2] == g[2:])
        first = np.flatnonzero(np.diff(g, prepend=-1))
        changed = np.repeat(np.logical_or.reduceat(goes, first), np.diff(first, append=len(g)))
        settled.append(todo[~changed])
        todo = todo[changed & ~goes]
    return np.sort(np.concatenate(settled))


def convex_areas(count: int, group: Integers, row: Integers, value: Integers) -> Integers:
    """The convex areas (count,) in pixels, from the hull vertices of the outermost pixels' centres.

    Group 2i holds the rows and the last columns of region i, group 2i + 1 the rows and the negated first columns.
    Equal to `skimage.morphology.convex_hull_image` with its default: the hull of the pixels' diamonds (|x| + |y| ≤ 1/2
    around each centre), of which pixels count whose centres lie inside or on the edge.
    """
    # The hull of diamonds is the hull of the centres, grown by a diamond. Where the latter's edge falls or rises by p
    # in q rows, that of the former lies max(1, |p| / q) / 2 beyond it: fractions of integers, rounded down exactly.
    joined = np.flatnonzero(group[:-1] == group[1:])
    p, q = value[joined + 1] - value[joined], row[joined + 1] - row[joined]
    # A vertex ends two edges and takes the larger growth; the minimum of one half rounds down to none at integers.
    beyond = np.zeros(len(group), np.int64)
    beyond[joined] = np.maximum(0, p // (2 * q))
    beyond[joined + 1] = np.maximum(beyond[joined + 1], -p // (2 * q))
    sums = np.zeros(2 * count, np.int64)
    np.add.at(sums, group, value + beyond)
    # Rows between two vertices: `edge` repeats each edge's index once for each of its rows, `step` counts these from 1.
    steps = q - 1
    edge = np.repeat(np.arange(len(joined)), steps)
    step = np.arange(1, len(edge) + 1) - np.repeat(np.cumsum(steps) - steps, steps)
    grown = 2 * (value[joined] * q)[edge] + 2 * p[edge] * step + np.maximum(q, abs(p))[edge]
    np.add.at(sums, group[joined][edge], grown // (2 * q[edge]))
    # A row holds last - first + 1 pixels, and the first columns came in negated; both sides have the same rows.
    rows = np.zeros(2 * count, np.int64)
    np.add.at(rows, group[joined], q)
    return sums[::2] + sums[1::2] + rows[::2] + 1
