"""The U-Net."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from yeastexp.nets.blocks import Norm, double_convolution, extended
from yeastexp.registry import model


@model("unet")
class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with "same" convolutions, for images of any size.

    Each of `levels` resolutions has two 3×3 convolutions, `width` channels at the finest and twice as many at each
    coarser one; 2×2 max-pooling down, 2×2 transposed convolutions up. With `space_to_depth` = p, blocks of p×p pixels
    become channels before the first convolution and outputs become blocks after the last one (space to depth and back):
    no pixel is lost, and the finest resolution costs p² times less. An image whose sides are no multiples of
    p · 2^(levels - 1) is extended by repeating its last row and column, at the far sides alone, and the outputs are
    cut back: an image and its upper left part then lie on the same grid. "batch" norm is the choice for whole images;
    "instance" and "group" make every pixel depend on the whole image, and "instance" empties a level that is one pixel.

    `downsampling = "stride"` has no pooling: the first convolution of each coarser level steps by two pixels. With
    `residual`, every pair of convolutions is a block of He et al. 2016 (arXiv:1512.03385), on the way down and up:
    y = ReLU(N(C(ReLU(N(C(x))))) + S(x)), C a convolution and N its norm; S is x itself where channels and size stay,
    else a 1×1 convolution (with the stride of the first C) and its norm. Without norm, C and S have biases.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        width: Annotated[int, Field(ge=1, le=1024)] = 16,
        levels: Annotated[int, Field(ge=1, le=8)] = 4,
        space_to_depth: Annotated[int, Field(ge=1, le=8)] = 2,
        norm: Norm = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        residual: bool = False,
        downsampling: Literal["pool", "stride"] = "pool",
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.multiple = space_to_depth * 2 ** (levels - 1)
        self.space_to_depth = space_to_depth
        self.pools = downsampling == "pool"
        # Without pooling every level but the finest, which is the one with `width` channels, begins with a stride.
        self.down = nn.ModuleList(
            double_convolution(inner, outer, norm, dropout, residual, stride=1 if self.pools or outer == width else 2)
            for inner, outer in zip([channels * space_to_depth**2, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * outer, outer, 2, 2) for outer in reversed(widths[:-1]))
        self.merge = nn.ModuleList(
            double_convolution(2 * outer, outer, norm, dropout, residual) for outer in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(width, outputs * space_to_depth**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        features = functional.pixel_unshuffle(extended(images, self.multiple), self.space_to_depth)
        skips: list[Tensor] = []
        for block in self.down:
            features = block(functional.max_pool2d(features, 2) if skips and self.pools else features)
            skips.append(features)
        # The coarsest features are no skip: they are what is upsampled first.
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat([up(features), skips.pop()], dim=1))
        return functional.pixel_shuffle(self.head(features), self.space_to_depth)[..., :height, :width]
