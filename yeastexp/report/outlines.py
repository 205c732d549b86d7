"""The outlines of regions of pixels as path data, exact at the pixels' edges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Corner = tuple[int, int]
"""x and y of a corner of pixels."""

TURNS: dict[Corner, tuple[Corner, Corner, Corner]] = {
    (1, 0): ((0, 1), (1, 0), (0, -1)),
    (0, 1): ((-1, 0), (0, 1), (1, 0)),
    (-1, 0): ((0, -1), (-1, 0), (0, 1)),
    (0, -1): ((1, 0), (0, -1), (-1, 0)),
}
"""Where a loop goes on from a step: to the right first, so that regions that touch at a corner keep their own loops."""


def path(mask: Mask) -> str:
    """Closed loops about the regions of a mask (H, W), holes the other way round: `M2 3h5v1h-5z`."""
    return "".join(map(_written, _loops(mask)))


def _loops(mask: Mask) -> Iterator[list[Corner]]:
    """The corners at which each loop turns, the region on the right hand."""
    steps = _steps(mask)
    while steps:
        start = at = next(iter(steps))
        step = first = steps[start][0]
        corners = []
        while True:
            at = at[0] + step[0], at[1] + step[1]
            after = next(one for one in TURNS[step] if one in steps[at])
            _take(steps, at, after)
            if after != step:
                corners.append(at)
            step = after
            if (at, step) == (start, first):
                break
        yield corners


def _take(steps: dict[Corner, list[Corner]], at: Corner, step: Corner) -> None:
    steps[at].remove(step)
    if not steps[at]:
        del steps[at]


def _steps(mask: Mask) -> dict[Corner, list[Corner]]:
    """Every edge between a pixel of the mask and one outside, by the corner where it begins."""
    padded = np.pad(mask, 1)
    inside, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    before, behind = padded[1:-1, :-1], padded[1:-1, 1:]
    found: dict[Corner, list[Corner]] = {}
    for edges, begin, step in (
        (below & ~inside, (0, 0), (1, 0)),
        (inside & ~below, (1, 0), (-1, 0)),
        (before & ~behind, (0, 0), (0, 1)),
        (behind & ~before, (0, 1), (0, -1)),
    ):
        for y, x in np.argwhere(edges).tolist():
            found.setdefault((x + begin[0], y + begin[1]), []).append(step)
    return found


def _written(corners: list[Corner]) -> str:
    (x, y), *rest = corners
    parts = [f"M{x} {y}"]
    for after in rest:
        parts.append(f"h{after[0] - x}" if after[1] == y else f"v{after[1] - y}")
        x, y = after
    return "".join(parts) + "z"
