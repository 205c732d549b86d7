"""The outlines of cells along the borders of their pixels, as polygons with holes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[Any]
Ring = list[tuple[int, int]]
"""The vertices (x, y) of a closed ring; the first one is not repeated."""

RIGHT, DOWN, LEFT, UP = range(4)
STEPS = {RIGHT: (0, 1), DOWN: (1, 0), LEFT: (0, -1), UP: (-1, 0)}
"""The rows and columns that an edge leads on by, with the pixel that it bounds on its right-hand side."""

BESIDE = {RIGHT: (-1, 0), DOWN: (0, 1), LEFT: (1, 0), UP: (0, -1)}
"""The offset from the pixel that an edge bounds to the pixel on its other side."""

BEGINS = {RIGHT: (0, 0), DOWN: (0, 1), LEFT: (1, 1), UP: (1, 0)}
"""The corner of its pixel that an edge begins at, in rows and columns."""


def polygons(mask: Array, top: int = 0, left: int = 0) -> list[list[Ring]]:
    """Return the outlines of a mask (h, w) that begins at row `top` and column `left` of an image.

    Pixels that share no side are in different polygons. The first ring of each goes round it, the others round its
    holes, and rings touch at single points at most: all are valid polygons. The image's upper left corner is (0, 0).
    """
    # Each side of a pixel that faces another part is a directed edge, with a key of the vertex where it begins and its
    # direction; rings follow from edge to edge. Keys find the next edge in constant time, whatever the cell's size.
    parts, count = ndimage.label(mask)
    padded = np.pad(parts, 1)
    height, width = parts.shape
    across = width + 1  # vertices in a row
    edges: dict[int, int] = {}
    for direction, (down, right) in BESIDE.items():
        beside = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        rows, columns = np.nonzero((parts > 0) & (parts != beside))
        begin = BEGINS[direction]
        keys = ((rows + begin[0]) * across + columns + begin[1]) * 4 + direction
        edges.update(zip(keys.tolist(), parts[rows, columns].tolist(), strict=True))
    steps = [down * across + right for down, right in STEPS.values()]
    found: list[tuple[list[Ring], list[Ring]]] = [([], []) for _ in range(count)]
    left_over = dict(edges)
    # In reading order the first edge of a ring has the ring's highest corner, and none before it goes on straight.
    for first, part in edges.items():
        if first % 4 != RIGHT or first not in left_over:
            continue
        ring, area, last, edge = [], 0, None, first
        while edge in left_over:
            del left_over[edge]
            vertex, direction = divmod(edge, 4)
            row, column = divmod(vertex, across)
            if direction != last:
                ring.append((left + column, top + row))
                last = direction
            area += row * STEPS[direction][1]
            # Where pixels meet at a corner alone, turning left keeps the outer ring and that of a hole apart.
            onward = ((vertex + steps[direction]) * 4 + turn % 4 for turn in (direction - 1, direction, direction + 1))
            edge = next(candidate for candidate in onward if edges.get(candidate) == part)
        # Rows count downwards, so the sum is below 0 for a ring around pixels and above 0 for one around a hole.
        found[part - 1][area > 0].append(ring)
    return [outer + holes for outer, holes in found]
