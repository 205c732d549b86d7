"""The cells of a label map: their sizes, and what may be wrong with their ids."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Array = npt.NDArray[Any]


def diameters(instances: Tensor | None, labels: Tensor) -> list[float]:
    """Equivalent circular diameters of each instance, or of each connected component of the foreground."""
    components = ndimage.label(labels.numpy() > 0)[0] if instances is None else instances.numpy()
    return [2 * sqrt(area / pi) for area in np.unique(components[components > 0], return_counts=True)[1].tolist()]


@dataclass(frozen=True)
class CellStatistics:
    """The cells of a map `instances`; ids are as stored."""

    count: int
    diameter_px: float
    """The diameter of a disc with the median area of the cells; 0 without cells."""
    longest_px: int
    """The longest side of the bounding boxes of connected pieces of cells."""
    touching: int
    """Cells with a pixel beside or diagonal to one of another cell."""
    cut: int
    """Cells that touch a border of the image."""
    single_pixels: tuple[int, ...]
    """Ids of cells of one pixel away from the border of the image, where a cell that is cut may leave one."""
    in_pieces: tuple[int, ...]
    """Ids whose pixels are not connected, diagonals included."""
    distant: tuple[int, ...]
    """Ids of cells with a piece farther from the cell's largest piece than the median diameter."""
    largest_id: int = 0


def measure(instances: Tensor) -> CellStatistics:
    """The statistics of a label map (H, W); ids are positive, all else is background."""
    ids = np.maximum(instances.numpy(), 0)
    # The first column always starts a run, so that no run goes on into the next row.
    starts = np.ones(ids.shape, np.bool_)
    starts[:, 1:] = ids[:, 1:] != ids[:, :-1]
    # Runs of one id in a row are far fewer than pixels: areas, extents and pieces are computed from runs. Pieces are
    # the connected components of the graph that links runs of one id in neighbouring rows.
    runs = np.cumsum(starts.ravel()).reshape(ids.shape) - 1
    rows, first = np.nonzero(starts)
    lengths = np.bincount(runs.ravel())
    pairs = [_pairs(ids, runs, shift) for shift in (-1, 0, 1)]
    above, below = (np.concatenate([pair[end] for pair in pairs]) for end in (0, 1))
    graph = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(len(rows), len(rows)))
    pieces = connected_components(graph.tocsr(), directed=False)[1]
    inside = ids[starts] > 0
    rows, first, lengths = rows[inside], first[inside], lengths[inside]
    numbers, cells = np.unique(ids[starts][inside], return_inverse=True)
    if not len(numbers):
        return CellStatistics(0, 0.0, 0, 0, 0, (), (), ())
    _, some_run, pieces = np.unique(pieces[inside], return_index=True, return_inverse=True)
    areas = np.bincount(cells, lengths)
    diameter = 2 * sqrt(float(np.median(areas)) / pi)
    sides = [_extents(pieces, rows, rows), _extents(pieces, first, first + lengths - 1)]
    owners, sizes = cells[some_run], np.bincount(pieces, lengths)
    centres = [np.bincount(pieces, lengths * at) / sizes for at in (rows, first + (lengths - 1) / 2)]
    # Sorted by cell, then by falling size, the first piece of each cell is its largest. The gap to it is measured
    # between discs of the pieces' areas, as exact distances of outlines would take all pairs of pixels.
    order = np.lexsort((-sizes, owners))
    largest = order[np.searchsorted(owners[order], np.arange(len(numbers)))][owners]
    radii = np.sqrt(sizes / pi)
    gaps = np.hypot(*(at - at[largest] for at in centres)) - radii - radii[largest]
    border = np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]])
    return CellStatistics(
        len(numbers),
        diameter,
        int(np.max(sides)),
        len(_touching(ids)),
        len(np.unique(border[border > 0])),
        tuple(np.setdiff1d(numbers[areas == 1], border).tolist()),
        tuple(numbers[np.bincount(owners) > 1].tolist()),
        tuple(np.unique(numbers[owners[gaps > diameter]]).tolist()),
        int(numbers[-1]),
    )


def of_fewer_bits(largest_id: int, count: int) -> str:
    """A clause for messages about ids in several pieces, if 8 or 16 bits may have been too few for them; else empty."""
    bits = {255: 8, 65535: 16}.get(largest_id)
    if bits is None or count <= largest_id // 2:
        return ""
    return f"; the largest id is {largest_id}, the most that {bits} bits hold: save ids in {2 * bits}"


def _neighbours(plane: Array, shift: int) -> tuple[Array, Array]:
    """The upper and the lower pixel of all pairs in neighbouring rows, the lower `shift` columns to the right."""
    width = plane.shape[1]
    above = plane[:-1, max(0, -shift) : width - max(0, shift)]
    return above, plane[1:, max(0, shift) : width - max(0, -shift)]


def _pairs(ids: Array, runs: Array, shift: int) -> tuple[Array, Array]:
    """The upper and the lower run of pairs of one id that touch, the lower pixel `shift` columns to the right."""
    upper, lower = _neighbours(ids, shift)
    same = (upper == lower) & (upper > 0)
    above, below = (plane[same] for plane in _neighbours(runs, shift))
    # Two runs meet in as many pixels as they overlap; those stand side by side, and one link is enough.
    new = np.ones(len(above), np.bool_)
    new[1:] = (np.diff(above) != 0) | (np.diff(below) != 0)
    return above[new], below[new]


def _touching(ids: Array) -> Array:
    """The ids of cells with a pixel beside or diagonal to one of another cell."""
    # Each pair of neighbours is found from one side: right, and the three pixels below.
    met = [np.zeros(0, ids.dtype)]
    for one, other in [(ids[:, :-1], ids[:, 1:]), *(_neighbours(ids, shift) for shift in (-1, 0, 1))]:
        apart = (one != other) & (one > 0) & (other > 0)
        met += [one[apart], other[apart]]
    return np.unique(np.concatenate(met))


def _extents(pieces: Array, low: Array, high: Array) -> Array:
    """The side of each piece's bounding box along one axis, from the first and last pixel of each run on that axis."""
    count = int(pieces.max()) + 1
    least, most = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    np.minimum.at(least, pieces, low)
    np.maximum.at(most, pieces, high)
    return np.asarray(most - least + 1)
