"""One image seen from several sides, and the mean of what a model says of them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from yeastexp.contracts import Task
from yeastexp.data.pieces import Pieces

Symmetry = tuple[bool, bool, bool]
"""Whether rows are mirrored, columns are mirrored, and then rows and columns exchanged."""

SYMMETRIES: tuple[Symmetry, ...] = (
    (False, False, False),
    (True, True, False),
    (False, False, True),
    (True, True, True),
    (False, True, False),
    (True, False, False),
    (False, True, True),
    (True, False, True),
)
"""The eight flips and rotations. The first two are turns by 180°, the first four those by 90°, each second mirrored."""


def averaged(image: Pieces, outputs: Callable[[Pieces], Pieces], task: Task, views: int) -> Pieces:
    """The mean of a model's outputs, as a task takes it, over the first `views` symmetries of an image."""
    if views == 1:
        return outputs(image)
    seen = [reoriented(outputs(reoriented(image, symmetry)), inverse(symmetry)) for symmetry in SYMMETRIES[:views]]

    def cut(rows: slice, columns: slice) -> Tensor:
        total = task.activate(seen[0].cut(rows, columns))
        for view in seen[1:]:
            total += task.activate(view.cut(rows, columns))
        return task.deactivate(total / len(seen))

    return Pieces(image.size, cut)


def reoriented(image: Pieces, symmetry: Symmetry) -> Pieces:
    """An image with its rows or columns mirrored, and then maybe exchanged."""
    up, left, exchanged = symmetry
    height, width = image.size

    def cut(rows: slice, columns: slice) -> Tensor:
        if exchanged:
            rows, columns = columns, rows
        source = _mirrored(rows, height) if up else rows, _mirrored(columns, width) if left else columns
        piece = image.cut(*source).flip([dim for dim, mirrored in ((1, up), (2, left)) if mirrored])
        return piece.transpose(1, 2).contiguous() if exchanged else piece

    return Pieces((width, height) if exchanged else (height, width), cut)


def inverse(symmetry: Symmetry) -> Symmetry:
    """The symmetry that undoes another."""
    up, left, exchanged = symmetry
    return (left, up, True) if exchanged else symmetry


def _mirrored(part: slice, length: int) -> slice:
    return slice(length - part.stop, length - part.start)
