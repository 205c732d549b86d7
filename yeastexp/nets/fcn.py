"""The fully convolutional network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from yeastexp.errors import UserError
from yeastexp.nets.blocks import Bilinear, Norm, double_convolution, extended
from yeastexp.registry import model


@model("fcn")
class FCN(nn.Module):
    """Fully convolutional network (Long, Shelhamer and Darrell 2015, arXiv:1411.4038), for images of any size.

    An encoder of `levels` resolutions with 2×2 max-pooling between them, each of two 3×3 "same" convolutions with
    norm and ReLU, `width` channels at the finest and twice as many at each coarser one. 1×1 convolutions score the
    classes at the coarsest level and at the `skips` next finer ones; from the coarsest on, scores are doubled in size
    and added to those of the next level, at last brought to the image's size, all bilinearly with fixed weights. Fewer
    skips give coarser outlines: the paper's FCN-32s, 16s and 8s are 0, 1 and 2 skips over an encoder of 6 levels, a
    VGG net trained on photographs, where this one starts from random weights. Images are extended at their far sides
    to multiples of 2^(levels - 1), as `unet` does. By default a score of the coarsest level depends on 140 × 140
    pixels: some cells of 20 to 40 pixels, and their surroundings.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: Annotated[int, Field(ge=1, le=1024)] = 16,
        levels: Annotated[int, Field(ge=1, le=8)] = 5,
        skips: Annotated[int, Field(ge=0, le=7, description="finer levels scored")] = 3,
        norm: Norm = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        if skips >= levels:
            raise UserError(f"{skips} skips need {skips + 1} levels, not {levels}; use fewer", key="skips")
        widths = [width * 2**level for level in range(levels)]
        finest = levels - 1 - skips
        self.multiple = 2 ** (levels - 1)
        self.down = nn.ModuleList(
            double_convolution(inner, outer, norm, dropout)
            for inner, outer in zip([channels, *widths], widths, strict=False)
        )
        self.heads = nn.ModuleList(nn.Conv2d(outer, classes, 1) for outer in reversed(widths[finest:]))
        self.doubled = Bilinear(2)
        self.enlarged = Bilinear(2**finest) if finest else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        features = extended(images, self.multiple)
        skips: list[Tensor] = []
        for block in self.down:
            features = block(functional.max_pool2d(features, 2) if skips else features)
            skips.append(features)
        coarsest, *finer = self.heads
        scores = coarsest(skips.pop())
        for head in finer:
            scores = self.doubled(scores) + head(skips.pop())
        enlarged: Tensor = self.enlarged(scores)
        return enlarged[..., :height, :width]
