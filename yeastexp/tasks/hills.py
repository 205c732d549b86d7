"""What tells touching cells apart: a hill in each cell.

A hill is the expected time that a random walker needs to leave its cell, as a share of the longest: the solution u of
∇²u = -1 inside and u = 0 outside, as √(u / max u) (after Gorelick et al. 2006, doi:10.1109/TPAMI.2006.253, who used it
to classify silhouettes). Being a share, it is the same for cells of all sizes, so no augmentation makes it wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int32]

PRECISION = 1e-3
"""Of a hill's height, relative to its top."""


def hills(instances: Array) -> npt.NDArray[np.float32]:
    """The hill of each cell, (H, W) in [0, 1], from ids (H, W); 0 where there is no cell (id 0 or less).

    Cells that the image cuts are taken to be mirrored at its border, for they go on there. The equations of all cells
    are solved together by Jacobi's iteration with Chebyshev's acceleration (Golub and Varga 1961,
    doi:10.1007/BF01386013), which adds neighbours up in an order that flips and rotations do not change: the hills of
    a flipped image are the flipped hills to the last bit.
    """
    height = np.zeros(instances.shape, np.float32)
    rows, columns = np.nonzero(instances > 0)
    if not len(rows):
        return height
    _, cell = np.unique(instances[rows, columns], return_inverse=True)
    cell = cell + 1
    numbered = np.zeros(instances.shape, np.int32)
    numbered[rows, columns] = cell
    time = _solved(_neighbours(numbered, cell, rows, columns), _spectral_radius(numbered))
    longest = np.zeros(int(cell.max()) + 1)
    np.maximum.at(longest, cell, time)
    height[rows, columns] = np.sqrt(time / longest[cell])
    return height


def _neighbours(numbered: Labels, cell: Array, rows: Array, columns: Array) -> list[Array]:
    """For each pixel of a cell, the places of its four neighbours in the list of pixels; outside its cell, the end."""
    (height, width), place = numbered.shape, np.zeros(numbered.shape, np.int64)
    place[rows, columns] = np.arange(len(rows))
    neighbours = []
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        there = np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
        neighbours.append(np.where(numbered[there] == cell, place[there], len(rows)))
    return neighbours


def _spectral_radius(numbered: Labels) -> float:
    """A bound for that of Jacobi's iteration: it is known for a rectangle, and smaller for any cell within it.

    What is mirrored at a border is twice as long.
    """
    radius = 0.0
    for box in ndimage.find_objects(numbered):
        sides = (
            (part.stop - part.start) * (2 if part.start == 0 or part.stop == length else 1)
            for part, length in zip(box, numbered.shape, strict=True)
        )
        radius = max(radius, sum(np.cos(np.pi / (side + 1)) for side in sides) / 2)
    return float(radius)


def _solved(neighbours: list[Array], radius: float) -> npt.NDArray[np.float64]:
    """The walkers' times of all pixels (N,), within `PRECISION` of the longest."""
    up, down, left, right = neighbours
    before = time = np.zeros(len(up) + 1)
    weight, reached, growth = 1.0, 1.0, 1 / radius + np.sqrt(max(1 / radius**2 - 1, 0)) if radius else np.inf
    while reached > PRECISION / 4:
        relaxed = np.zeros_like(time)
        relaxed[:-1] = ((time[up] + time[down]) + (time[left] + time[right]) + 1) / 4
        before, time = time, before + weight * (relaxed - before)
        weight = 2 / (2 - radius**2) if weight == 1.0 else 1 / (1 - radius**2 * weight / 4)
        reached /= growth
    return time[:-1]
