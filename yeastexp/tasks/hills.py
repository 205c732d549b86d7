"""Hills: maps that rise inside of each cell and fall to its outline, by which touching cells are told apart.

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
"""The error of a hill's height that is accepted, relative to its top.

A cell that reaches all four borders and is not the whole image can have ten times as much.
"""


def hills(instances: Array) -> npt.NDArray[np.float32]:
    """Return the hill of each cell, (H, W) in [0, 1], from ids (H, W); 0 where there is no cell (id 0 or less).

    Cells that the image cuts are taken to be mirrored at its border, for they go on there. The equations of all cells
    are solved by Jacobi's iteration with Chebyshev's acceleration (Golub and Varga 1961,
    doi:10.1007/BF01386013), which adds neighbours up in an order that flips and rotations do not change: the hills of
    a flipped image are the flipped hills to the last bit.
    """
    height = np.zeros(instances.shape, np.float32)
    rows, columns = np.nonzero(instances > 0)
    if not len(rows):
        return height
    _, cell = np.unique(instances[rows, columns], return_inverse=True)
    numbered = np.zeros(instances.shape, np.int32)
    numbered[rows, columns] = cell + 1
    radius = _spectral_radii(numbered)
    # Large cells need many times the steps of small ones, so each is solved with those about as slow to converge:
    # 1 - radius within a factor of 2, which means steps within a factor of √2.
    classes = np.floor(np.log2(1 - radius)).astype(np.int64)[cell]
    for slow in np.unique(classes):
        part = classes == slow
        members, (y, x) = cell[part], (rows[part], columns[part])
        time = _solved(_neighbours(numbered, members + 1, y, x), float(radius[members].max()))
        longest = np.zeros(len(radius))
        np.maximum.at(longest, members, time)
        height[y, x] = np.sqrt(time / longest[members])
    return height


def _neighbours(numbered: Labels, cell: Array, rows: Array, columns: Array) -> list[Array]:
    """Return the indices of the four neighbours of each pixel in the list of pixels; the list's length if in no cell.

    A neighbour in another cell counts as in none.
    """
    # At the image's border a pixel is clipped to itself, which mirrors the cell there.
    (height, width), place = numbered.shape, np.zeros(numbered.shape, np.int64)
    place[rows, columns] = np.arange(len(rows))
    neighbours = []
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        there = np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
        neighbours.append(np.where(numbered[there] == cell, place[there], len(rows)))
    return neighbours


def _spectral_radii(numbered: Labels) -> npt.NDArray[np.float64]:
    """Return an upper bound of the spectral radius of Jacobi's iteration for each cell."""
    # That of a rectangle is known, and a cell has less than its bounding box. A side that is mirrored at one border is
    # twice as long, and one between two borders has no end. A cell that is the whole image has no outline at all, so
    # that its times grow without end and any step is as good to stop at.
    radii = []
    for box in ndimage.find_objects(numbered):
        sides = [part.stop - part.start for part in box]
        borders = [(part.start == 0) + (part.stop == length) for part, length in zip(box, numbered.shape, strict=True)]
        free = borders == [2, 2]
        shares = (
            1.0 if ends == 2 and not free else np.cos(np.pi / (side * (2 if ends else 1) + 1))
            for side, ends in zip(sides, borders, strict=True)
        )
        radii.append(sum(shares) / 2)
    return np.array(radii)


def _solved(neighbours: list[Array], radius: float) -> npt.NDArray[np.float64]:
    """Return the expected times of walkers from all pixels (N,), within `PRECISION` of the longest."""
    up, down, left, right = neighbours
    # The last element stands for all that is outside, and stays 0.
    before = time = np.zeros(len(up) + 1)
    weight, reached, growth = 1.0, 1.0, 1 / radius + np.sqrt(max(1 / radius**2 - 1, 0)) if radius else np.inf
    while reached > PRECISION / 4:
        relaxed = np.zeros_like(time)
        # Opposite neighbours are added first. Flips swap the two of a pair and rotations swap the pairs, and floating-
        # point addition commutes, so no bit changes; a plain sum of four, which is not associative, would.
        relaxed[:-1] = ((time[up] + time[down]) + (time[left] + time[right]) + 1) / 4
        before, time = time, before + weight * (relaxed - before)
        weight = 2 / (2 - radius**2) if weight == 1.0 else 1 / (1 - radius**2 * weight / 4)
        reached /= growth
    return time[:-1]
