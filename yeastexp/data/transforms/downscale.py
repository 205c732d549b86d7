"""A coarser grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from yeastexp.data.pieces import Pieces
from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.registry import transform


@transform("downscale")
@dataclass(frozen=True)
class Downscale(BasicTransform2D):
    """Keeps every `factor`-th pixel, after a box filter of that side with probability `filter_probability`.

    The box starts at the kept pixel, so a filtered pixel is the mean of the block it stands for (at the far border, of
    the part inside). Labels take the kept pixel's own. Predictions are brought back to the original grid bilinearly.
    """

    factor: Annotated[int, Field(ge=2, le=32)] = 2
    filter_probability: Annotated[float, Field(ge=0, le=1)] = 1.0

    @property
    def margin_px(self) -> int:  # type: ignore[override]  # a number to those who read it
        """How far the box reaches beyond the kept pixel, 0 if no box is ever drawn."""
        return self.factor - 1 if self.filter_probability else 0

    def draw(self, generator: np.random.Generator) -> bool:
        if self.filter_probability in (0, 1):
            return self.filter_probability == 1
        return bool(generator.random() < self.filter_probability)

    def image(self, image: Tensor, params: bool) -> Tensor:
        if not params:
            return image
        # Zeros beyond the far border; dividing by the share inside makes it a mean of the pixels that exist.
        beyond = (0, self.factor - 1, 0, self.factor - 1)
        summed = functional.avg_pool2d(functional.pad(image[None], beyond), self.factor, stride=1)
        inside = functional.avg_pool2d(functional.pad(image.new_ones(image.shape)[None], beyond), self.factor, stride=1)
        return (summed / inside)[0]

    def geometry(self, size: Size, params: bool) -> tuple[np.ndarray, Size]:
        coarse = (-(-size[0] // self.factor), -(-size[1] // self.factor))
        return np.diag([self.factor, self.factor, 1.0]), coarse

    def restore(self, logits: Pieces, size: Size) -> Pieces:
        def cut(rows: slice, columns: slice) -> Tensor:
            if (rows.stop - rows.start, columns.stop - columns.start) == size:
                return self._interpolated(logits.whole, size)
            places = [_between(part, n, self.factor) for part, n in zip((rows, columns), logits.size, strict=True)]
            values = logits.cut(*(needed for needed, _, _, _ in places))
            for dim, (_, low, high, share) in zip((1, 2), places, strict=True):
                weight = share.to(values).view(-1, 1) if dim == 1 else share.to(values)
                low, high = low.to(values.device), high.to(values.device)
                values = (1 - weight) * values.index_select(dim, low) + weight * values.index_select(dim, high)
            return values

        return Pieces(size, cut)

    def _interpolated(self, logits: Tensor, size: Size) -> Tensor:
        # A logit belongs where its label was taken: at the kept pixel, not at the middle of the block.
        between = [(n - 1) * self.factor + 1 for n in logits.shape[-2:]]
        fine = functional.interpolate(logits[None], size=between, mode="bilinear", align_corners=True)
        beyond = (0, size[1] - between[1], 0, size[0] - between[0])
        return functional.pad(fine, beyond, mode="replicate")[0]


def _between(fine: slice, length: int, factor: int) -> tuple[slice, Tensor, Tensor, Tensor]:
    """The coarse rows that some fine ones lie between, the two around each, and its share of the second.

    Places are rounded in float32 as `interpolate` rounds them on the whole image: counted from the image's corner, not
    from the piece's, they lose digits, and neighbouring pieces would show a seam if each lost others.
    """
    last = length - 1
    scale = torch.tensor(last / max(last * factor, 1), dtype=torch.float32)
    place = (scale * torch.arange(fine.start, fine.stop, dtype=torch.float32)).clamp_max(last)
    low = place.long().clamp_max(last)
    high = (low + 1).clamp_max(last)
    first = int(low[0])
    return slice(first, int(high[-1]) + 1), low - first, high - first, place - low
