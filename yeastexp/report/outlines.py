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
"""x and y of a corner of pixels."""

TURNS: dict[Corner, tuple[Corner, Corner, Corner]] = {
    (1, 0): ((0, 1), (1, 0), (0, -1)),
    (0, 1): ((-1, 0), (0, 1), (1, 0)),
    (-1, 0): ((0, -1), (-1, 0), (0, 1)),
    (0, -1): ((1, 0), (0, -1), (-1, 0)),
}
"""Where a loop may turn after a step: to the right first, so that regions touching at a corner stay separate."""


def outline(mask: Mask, corner: Corner = (0, 0)) -> str:
    """Closed loops around the regions of a mask (H, W), holes the other way round: `M2 3h5v1h-5z`.

    `corner` is where the mask begins in the picture.
    """
    return "".join(_path(loop, corner) for loop in _loops(mask))


def cell_outlines(ids: npt.NDArray[np.integer[Any]]) -> str:
    """The loops of each id above 0 (H, W), so that cells that touch are told apart."""
    compact, known = compacted(ids)
    return "".join(
        outline(compact[box] == number, (box[1].start, box[0].start))
        for number, box in enumerate(ndimage.find_objects(compact, len(known) - 1), start=1)
        if box
    )


def _loops(mask: Mask) -> Iterator[list[Corner]]:
    """The corners at which each loop turns, with the region on the right."""
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
    """The edges between a pixel of the mask and one outside, by the corner where they begin."""
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
