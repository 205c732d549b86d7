"""Cutting off borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from yeastexp.data.pieces import Pieces
from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.data.transforms.geometry import translation
from yeastexp.errors import UserError
from yeastexp.registry import transform

Pixels = Annotated[int, Field(ge=0, le=100_000, description="pixels")]

CERTAIN = 20.0
"""How much larger the logit of class 0 is where there is no image: a probability of 1 within float32's rounding."""


@transform("crop")
@dataclass(frozen=True)
class Crop(BasicTransform2D):
    """Cuts pixels off the borders of every image, as those of a scale bar, a frame or a dark corner.

    Predictions and scores stay on the original pixels, where what was cut off counts as class 0.
    """

    whole_images = True

    top: Pixels = 0
    bottom: Pixels = 0
    left: Pixels = 0
    right: Pixels = 0

    def geometry(self, size: Size, params: Any) -> tuple[np.ndarray, Size]:
        left_over = size[0] - self.top - self.bottom, size[1] - self.left - self.right
        if min(left_over) < 1:
            raise UserError(
                f"crop: cuts {self.top} + {self.bottom} rows and {self.left} + {self.right} columns off an image of "
                f"{size[0]} × {size[1]} pixels, which leaves nothing; cut off less"
            )
        return translation(self.top, self.left), left_over

    def restore(self, logits: Pieces, size: Size) -> Pieces:
        def cut(rows: slice, columns: slice) -> Tensor:
            kept = [
                slice(min(max(part.start - border, 0), length), min(max(part.stop - border, 0), length))
                for part, border, length in zip((rows, columns), (self.top, self.left), logits.size, strict=True)
            ]
            outside = any(part.start >= part.stop for part in kept)  # a pixel of them says how many classes there are
            values = logits.cut(*([slice(0, 1)] * 2 if outside else kept))
            whole = values.new_full((len(values), rows.stop - rows.start, columns.stop - columns.start), -CERTAIN)
            whole[0] = 0.0
            if not outside:
                y, x = kept[0].start + self.top - rows.start, kept[1].start + self.left - columns.start
                whole[:, y : y + values.shape[1], x : x + values.shape[2]] = values
            return whole

        return Pieces(size, cut)
