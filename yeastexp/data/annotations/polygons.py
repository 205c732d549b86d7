"""Outlines of cells drawn into label maps, by the rule of scikit-image's `draw.polygon`: pixel centres inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Size = tuple[int, int]

EDGES = 1 << 12
"""Edges that are processed at a time, so that memory does not grow with the length of an outline."""

NEAR = 1e-12
"""Distance within which a vertex counts as lying on a pixel centre, as in scikit-image."""

FARTHEST = 1e7
"""Largest coordinate, in pixels, that an outline in an image can have."""

OVERLAPPING, CUT, OUTSIDE, EMPTY, HIDDEN = "overlapping", "cut", "outside", "empty", "hidden"
"""The oddities of outlines that are counted. Of two that overlap, the later one is counted and keeps its pixels."""


@dataclass(frozen=True)
class Shape:
    """One cell: the union of its parts, each of rings (n, 2) of x and y, filled by the even-odd rule.

    If the file has pixels in place of an outline, `mask` (h, w) holds them, with its first pixel at `corner` (row,
    column), and there are no parts.
    """

    parts: tuple[tuple[Array, ...], ...] = ()
    label: int = 0
    mask: Array | None = None
    corner: tuple[int, int] = (0, 0)

    def pixels(self, size: Size) -> tuple[Array, slice, slice, bool]:
        """The cell's mask in a box of an image, the box's rows and columns, and whether the cell goes on outside."""
        if self.mask is not None:
            return _placed(self.mask, self.corner, size)
        vertices = np.concatenate([ring for part in self.parts for ring in part] or [np.zeros((0, 2))])
        if not len(vertices):
            return np.zeros((0, 0), bool), slice(0, 0), slice(0, 0), False
        low, high = np.floor(vertices.min(axis=0)).astype(int), np.ceil(vertices.max(axis=0)).astype(int)
        cut = bool((vertices.min(axis=0) <= -1).any() or (vertices.max(axis=0) >= size[::-1]).any())
        rows, columns = (slice(max(0, low[i]), max(0, low[i], min(size[1 - i], high[i] + 1))) for i in (1, 0))
        inside = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        for part in self.parts:
            odd = np.zeros_like(inside)
            for ring in part:
                odd ^= filled(ring - [columns.start, rows.start], inside.shape)
            inside |= odd
        return inside, rows, columns, cut


def filled(ring: Array, size: Size) -> Array:
    """The mask (H, W) of pixels whose centres lie inside a closed ring (n, 2) of x and y, or on it.

    Pixel centres have whole coordinates. An edge is visited only in the rows that it crosses, and a cumulative sum
    gives the parity of every pixel: far faster than testing all pixels against all edges.
    """
    height, width = size
    inside = np.zeros(size, bool)
    if not len(ring) or not inside.size:
        return inside
    # Crossings of the rows by edges, for a ray to the right (of each pixel left of a crossing the parity changes) and
    # one to the left. They differ where a pixel lies on an edge, which counts as inside.
    right, left = np.zeros((height, width + 1), np.int32), np.zeros((height, width + 1), np.int32)
    following = np.roll(ring, 1, axis=0)
    for first in range(0, len(ring), EDGES):
        start, end = ring[first : first + EDGES], following[first : first + EDGES]
        for rows, edge in _rows_of(start[:, 1], end[:, 1], height):
            x, sign = _crossing(start[edge], end[edge], rows)
            y0, y1 = start[edge, 1] - rows, end[edge, 1] - rows
            rays = ((right, x + (sign > 0), (y0 > 0) != (y1 > 0)), (left, x + (sign >= 0), (y0 < 0) != (y1 < 0)))
            for counts, column, crossed in rays:
                np.add.at(counts, (rows[crossed], np.clip(column[crossed], 0, width).astype(np.intp)), 1)
    # `right` counts crossings by the first column that lies not left of them, `left` by the first that lies right.
    inside |= (right[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:] & 1).astype(bool)
    inside |= (left.cumsum(axis=1)[:, :-1] & 1).astype(bool)
    nearest = np.rint(ring)
    on = (np.abs(ring - nearest) < NEAR).all(axis=1) & (nearest >= 0).all(axis=1) & (nearest < [width, height]).all(1)
    inside[nearest[on, 1].astype(np.intp), nearest[on, 0].astype(np.intp)] = True
    return inside


def _rows_of(y0: Array, y1: Array, height: int) -> Iterable[tuple[Array, Array]]:
    """Pairs (row, edge) where an edge crosses or touches a row, as two arrays, in portions of bounded memory."""
    low = np.clip(np.ceil(np.minimum(y0, y1)), 0, height).astype(np.intp)
    count = np.clip(np.floor(np.maximum(y0, y1)) + 1, 0, height).astype(np.intp) - low
    edges = np.flatnonzero((count > 0) & (y0 != y1))
    step = max(1, (1 << 20) // max(height, 1))
    for first in range(0, len(edges), step):
        some = edges[first : first + step]
        repeated = np.repeat(some, count[some])
        offsets = np.arange(len(repeated)) - np.repeat(np.cumsum(count[some]) - count[some], count[some])
        yield low[repeated] + offsets, repeated


def _crossing(start: Array, end: Array, rows: Array) -> tuple[Array, Array]:
    """The column nearest to the crossing of each edge with its row, and the side of it (sign) on which that lies."""
    (x0, y0), (x1, y1) = start.T, end.T
    column = np.rint(x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    # In the terms of scikit-image, so that what lies exactly on an edge is decided alike.
    x0, x1, y0, y1 = x0 - column, x1 - column, y0 - rows, y1 - rows
    return column, np.sign((x0 * y1 - x1 * y0) / (y1 - y0))


def _placed(mask: Array, corner: tuple[int, int], size: Size) -> tuple[Array, slice, slice, bool]:
    starts = [min(max(0, start), length) for start, length in zip(corner, size, strict=True)]
    stops = [
        min(max(at, start + extent), length)
        for at, start, extent, length in zip(starts, corner, mask.shape, size, strict=True)
    ]
    rows, columns = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    piece = mask[
        rows.start - corner[0] : rows.stop - corner[0], columns.start - corner[1] : columns.stop - corner[1]
    ].astype(bool)
    return piece, rows, columns, int(np.count_nonzero(mask)) > int(np.count_nonzero(piece))


def drawn(shapes: Sequence[Shape], size: Size) -> tuple[Array, Array, Counter[str]]:
    """Ids (H, W) from 1 on in the order of the shapes, their labels (H, W), and how many overlap or leave the image."""
    ids, labels = np.zeros(size, np.int32), np.zeros(size, np.int32)
    counts: Counter[str] = Counter()
    for number, shape in enumerate(shapes, 1):
        pixels, rows, columns, cut = shape.pixels(size)
        covered = bool(pixels.any())
        counts[CUT] += cut and covered
        counts[OUTSIDE] += cut and not covered
        counts[EMPTY] += not cut and not covered
        counts[OVERLAPPING] += bool(ids[rows, columns][pixels].any())
        ids[rows, columns][pixels] = number
        labels[rows, columns][pixels] = shape.label
    left = np.count_nonzero(np.bincount(ids.ravel(), minlength=1)[1:])
    counts[HIDDEN] = len(shapes) - counts[OUTSIDE] - counts[EMPTY] - int(left)
    return ids, labels, +counts


def from_corners(shapes: Sequence[Shape]) -> list[Shape]:
    """Shapes with whole coordinates at pixel corners, shifted so that whole coordinates are pixel centres."""
    return [replace(shape, parts=tuple(tuple(ring - 0.5 for ring in part) for part in shape.parts)) for shape in shapes]


def are_whole(shapes: Iterable[Shape]) -> bool:
    """Whether all coordinates are whole numbers."""
    return all(bool((ring == np.rint(ring)).all()) for shape in shapes for part in shape.parts for ring in part)


def count_corners(shapes: Iterable[Shape], usual: bool) -> bool:
    """Whether whole numbers are the corners of pixels in outlines, and not their centres; `usual` if they do not tell.

    Contours of masks tell: between two centres run those with sides at halves, along the corners those with sides at
    whole numbers. Outlines from pixel to pixel, as OpenCV gives them, run through the centres.
    """
    rings = [ring for shape in shapes for part in shape.parts for ring in part if len(ring) > 1]
    steps = [np.roll(ring, -1, axis=0) - ring for ring in rings]
    if not rings or not all((ring * 2 == np.rint(ring * 2)).all() for ring in rings):
        return usual
    if all(bool((ring == np.rint(ring)).all()) for ring in rings):
        moves = [step[(step != 0).any(axis=1)] for step in steps]
        from_pixel_to_pixel = all((np.abs(move) <= 1).all() for move in moves) and any(
            bool((move != 0).all(axis=1).any() or (move[1:] == move[:-1]).all(axis=1).any()) for move in moves
        )
        return usual and not from_pixel_to_pixel
    at_halves = at_whole = 0.0
    for ring, step in zip(rings, steps, strict=True):
        for fixed, moving in ((0, 1), (1, 0)):
            length = np.where(step[:, fixed] == 0, np.abs(step[:, moving]), 0)
            is_half = ring[:, fixed] % 1 == 0.5
            at_halves, at_whole = at_halves + length[is_half].sum(), at_whole + length[~is_half].sum()
    return usual if at_halves == at_whole else bool(at_whole > at_halves)


def ellipse(center: tuple[float, float], radii: tuple[float, float], vertices: int = 256) -> Array:
    """A polygon (n, 2) of x and y whose sides touch an ellipse from outside, so that its border is inside."""
    angles = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    unit: Array = np.stack([np.cos(angles), np.sin(angles)], axis=1) / np.cos(np.pi / vertices)
    return unit * radii + center


def rectangle(first: Sequence[float], second: Sequence[float]) -> Array:
    """A ring (n, 2) of x and y from two opposite vertices."""
    (x0, y0), (x1, y1) = first, second
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)
