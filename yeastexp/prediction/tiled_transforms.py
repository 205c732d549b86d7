"""The `[[transform]]` list on an image that is read piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yeastexp.data.pieces import Pieces, shifted
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.checked import checked
from yeastexp.randomness import generator

PROBE = 32
"""The side, in pixels and without margins, of the piece on which it is tried whether a transform is local."""


class NeedsWholeImage(Exception):
    """A transform cannot be applied piece by piece; the message is its name."""


def transformed(transforms: Sequence[BasicTransform2D], image: Pieces) -> Pieces:
    """Return an image after all transforms, computed when a piece is read.

    Raises NeedsWholeImage if a transform depends on more than a piece and its margins.
    """
    for transform in transforms:
        if transform.has("image") or transform.has("batch"):
            image = _with_new_values(transform, image)
        if transform.has("geometry"):
            image = _on_new_grid(transform, image)
    return image


def _with_new_values(transform: BasicTransform2D, image: Pieces) -> Pieces:
    """Return an image with the values of a transform; raises NeedsWholeImage if its margins do not suffice for them."""
    # Statistics are those of the whole image, so that each piece is normalised as the whole would be.
    params = transform.statistics(image) if transform.has("statistics") else _drawn(transform)

    def values(piece: Tensor) -> Tensor:
        return checked(transform, transform.batch(piece[None], [params])[0], piece, "batch")

    margin = transform.margin_px

    def cut(rows: slice, columns: slice) -> Tensor:
        wide = [
            slice(max(0, part.start - margin), min(length, part.stop + margin))
            for part, length in zip((rows, columns), image.size, strict=True)
        ]
        inner = [shifted(part, -around.start) for part, around in zip((rows, columns), wide, strict=True)]
        return values(image.cut(*wide))[:, inner[0], inner[1]]

    changed = Pieces(image.size, cut)
    if not _is_local(changed, margin):
        raise NeedsWholeImage(type(transform).__name__)
    return changed


def _is_local(image: Pieces, margin: int) -> bool:
    """Whether a piece from the middle is, to the last bit, what it is as a part of a larger piece."""
    # What a plugin's code depends on cannot be told from it, so it is tried: the mean of all that it is given, or a
    # ramp that begins at its first row, differs between the two. The inner piece is not centred in the larger one, and
    # so what is symmetric about the centre differs as well.
    side = PROBE + 2 * margin
    if min(image.size) < side:
        return False
    first = [(length - PROBE) // 2 for length in image.size]
    whole = image.cut(*(slice(start, start + PROBE) for start in first))
    inner = slice(PROBE // 4, PROBE - PROBE // 3)
    part = image.cut(*(slice(start + inner.start, start + inner.stop) for start in first))
    return torch.equal(whole[:, inner, inner], part)


def _on_new_grid(transform: BasicTransform2D, image: Pieces) -> Pieces:
    """Return an image with the geometry of a transform, if that only takes every n-th row and column.

    Raises NeedsWholeImage if it does anything else.
    """
    matrix, size = transform.geometry(image.size, _drawn(transform))
    grid = _grid(matrix, size, image) if transform.has("restore") and isinstance(matrix, np.ndarray) else None
    if grid is None:
        raise NeedsWholeImage(type(transform).__name__)
    (down, top), (across, left) = grid

    def cut(rows: slice, columns: slice) -> Tensor:
        needed = (
            slice(first + part.start * step, first + (part.stop - 1) * step + 1)
            for part, step, first in ((rows, down, top), (columns, across, left))
        )
        return image.cut(*needed)[:, ::down, ::across]

    return Pieces(size, cut)


def _grid(matrix: np.ndarray, size: tuple[int, int], image: Pieces) -> list[tuple[int, int]] | None:
    """Return step and first position of rows and of columns.

    Returns None if a matrix (3, 3) mixes or mirrors pixels, or reads beyond the image.
    """
    lines = [(int(matrix[axis, axis]), int(matrix[axis, 2])) for axis in (0, 1)]
    (down, top), (across, left) = lines
    straight = np.array_equal(matrix, [[down, 0, top], [0, across, left], [0, 0, 1]])
    inside = all(
        step > 0 <= first and first + (count - 1) * step < length
        for (step, first), count, length in zip(lines, size, image.size, strict=True)
    )
    return lines if straight and inside else None


def _drawn(transform: BasicTransform2D) -> Any:
    """Return the parameters of a transform of whole images, which are deterministic: any generator gives the same."""
    return transform.draw(generator(0, "whole image"))
