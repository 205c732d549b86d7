"""The outlines of a mask's regions as SVG path data, along the edges of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from yeastexp.sample import compacted

Mask = npt.NDArray[np.bool_]
Corner = tuple[int, int]
"""x and y of a corner of pixels; also a step from one corner to the next."""

TURNS: dict[Corner, tuple[Corner, Corner, Corner]] = {
    (1, 0): ((0, 1), (1, 0), (0, -1)),
    (0, 1): ((-1, 0), (0, 1), (1, 0)),
    (-1, 0): ((0, -1), (-1, 0), (0, 1)),
    (0, -1): ((1, 0), (0, -1), (-1, 0)),
}
"""The steps that may follow a step: right, straight on, left. Two loops meet where regions touch at a corner; turning
right there, each stays with its own region, which is on the right."""


def outline(mask: Mask, corner: Corner = (0, 0)) -> str:
    """SVG path data of closed loops around the regions of a mask (H, W), such as `M2 3h5v1h-5z`.

    Loops around holes run the other way. `corner` is the position of the mask in the picture.
    """
    return "".join(_path(loop, corner) for loop in _loops(mask))


def cell_outlines(ids: npt.NDArray[np.integer[Any]]) -> str:
    """SVG path data of loops around each id above 0 (H, W), so that touching cells have outlines of their own."""
    # Each cell is traced within its bounding box: a mask of the whole image for each would take too long.
    compact, known = compacted(ids)
    return "".join(
        outline(compact[box] == number, (box[1].start, box[0].start))
        for number, box in enumerate(ndimage.find_objects(compact, len(known) - 1), start=1)
        if box
    )


def _loops(mask: Mask) -> Iterator[list[Corner]]:
    """The corners at which each loop turns, with the region on the right."""
    # Every step belongs to one loop and is removed when it is taken; what is left starts the next loop.
    steps = _steps(mask)
    while steps:
        start = at = next(iter(steps))
        step = first = steps[start][0]
        corners = []
        while True:
            at = at[0] + step[0], at[1] + step[1]
            following = next(turn for turn in TURNS[step] if turn in steps[at])
            steps[at].remove(following)
            if not steps[at]:
                del steps[at]
            if following != step:
                corners.append(at)
            step = following
            if (at, step) == (start, first):
                break
        yield corners


def _steps(mask: Mask) -> dict[Corner, list[Corner]]:
    """The directed edges between a pixel of the mask and one outside, by the corner where they begin."""
    padded = np.pad(mask, 1)
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    left, right = padded[1:-1, :-1], padded[1:-1, 1:]
    steps: dict[Corner, list[Corner]] = {}
    for edges, offset, step in (
        (below & ~above, (0, 0), (1, 0)),
        (above & ~below, (1, 0), (-1, 0)),
        (left & ~right, (0, 0), (0, 1)),
        (right & ~left, (0, 1), (0, -1)),
    ):
        for y, x in np.argwhere(edges).tolist():
            steps.setdefault((x + offset[0], y + offset[1]), []).append(step)
    return steps


def _path(corners: list[Corner], offset: Corner) -> str:
    (x, y), *rest = corners
    parts = [f"M{x + offset[0]} {y + offset[1]}"]
    for next_x, next_y in rest:
        parts.append(f"h{next_x - x}" if next_y == y else f"v{next_y - y}")
        x, y = next_x, next_y
    return "".join(parts) + "z"
