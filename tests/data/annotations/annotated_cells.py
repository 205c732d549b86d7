"""Cells as test files have them: a label image, outlines of it, and how alike two label images are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import measure

Array = npt.NDArray[Any]

SIZE = (96, 130)
"""Not square, so that rows taken for columns are noticed."""


def label_image(size: tuple[int, int] = SIZE, radius: float = 5.0, count: int = 8, seed: int = 0) -> Array:
    """Round cells (H, W) with ids from 1 on, which do not touch and lie within the image."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    labels = np.zeros(size, np.int32)
    while labels.max() < count:
        center = generator.uniform(radius + 1, np.array(size) - radius - 2)
        if (np.hypot(rows - center[0], columns - center[1]) > radius + 2)[labels > 0].all():
            labels[np.hypot(rows - center[0], columns - center[1]) <= radius] = labels.max() + 1
    return labels


def contours(labels: Array) -> list[Array]:
    """An outline (n, 2) of x and y of each cell, halfway between pixels in it and pixels out of it."""
    return [
        max(measure.find_contours(np.pad(labels == number, 1), 0.5), key=len)[:-1, ::-1] - 1
        for number in range(1, int(labels.max()) + 1)
    ]


def traced(mask: Array) -> Array:
    """The outline (n, 2) of x and y of one cell along the corners of its pixels, the first of which is (0, 0)."""
    edges: dict[tuple[int, int], tuple[int, int]] = {}
    padded = np.pad(mask, 1)
    for row, column in np.argwhere(mask):
        for (down, right), start, end in (
            ((-1, 0), (0, 0), (1, 0)),
            ((0, 1), (1, 0), (1, 1)),
            ((1, 0), (1, 1), (0, 1)),
            ((0, -1), (0, 1), (0, 0)),
        ):
            if not padded[row + 1 + down, column + 1 + right]:
                edges[column + start[0], row + start[1]] = (column + end[0], row + end[1])
    place = first = next(iter(edges))
    ring = [first]
    while (place := edges[place]) != first:
        ring.append(place)
    points = np.array(ring)
    turns = (np.roll(points, 1, axis=0) + np.roll(points, -1, axis=0) != 2 * points).any(axis=1)
    return points[turns]


def least_iou(ids: Array, labels: Array) -> float:
    """The smallest intersection over union of cells of the same id."""
    assert ids.shape == labels.shape and ids.max() == labels.max()
    numbers = range(1, int(labels.max()) + 1)
    return min(
        float(((ids == number) & (labels == number)).sum() / ((ids == number) | (labels == number)).sum())
        for number in numbers
    )
