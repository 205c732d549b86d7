"""The U-Net."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from yeastexp.registry import model

Norm = Literal["batch", "group", "instance", "none"]


@model("unet")
class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with "same" convolutions, for images of any size.

    Each of `levels` resolutions has two 3×3 convolutions, `width` channels at the finest and twice as many at each
    coarser one; 2×2 max-pooling down, 2×2 transposed convolutions up. With `patch` = p, blocks of p×p pixels become
    channels before the first convolution and logits become blocks after the last one (space to depth and back): no
    pixel is lost, and the finest resolution costs p² times less. An image whose sides are no multiples of
    patch · 2^(levels - 1) is extended by repeating its last row and column, at the far sides alone, and the logits are
    cut back: an image and its upper left part then see the same grid. "batch" norm is the choice for whole images;
    "instance" and "group" make every pixel depend on the whole image.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: Annotated[int, Field(ge=1, le=1024)] = 16,
        levels: Annotated[int, Field(ge=1, le=8)] = 4,
        patch: Annotated[int, Field(ge=1, le=8)] = 2,
        norm: Norm = "batch",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.multiple = patch * 2 ** (levels - 1)
        self.patch = patch
        self.down = nn.ModuleList(
            _block(inner, outer, norm, dropout)
            for inner, outer in zip([channels * patch**2, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * outer, outer, 2, 2) for outer in reversed(widths[:-1]))
        self.merge = nn.ModuleList(_block(2 * outer, outer, norm, dropout) for outer in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, classes * patch**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        features = functional.pad(images, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        features = functional.pixel_unshuffle(features, self.patch)
        skips: list[Tensor] = []
        for block in self.down:
            features = block(functional.max_pool2d(features, 2) if skips else features)
            skips.append(features)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat([up(features), skips.pop()], dim=1))
        return functional.pixel_shuffle(self.head(features), self.patch)[..., :height, :width]


def _block(inner: int, outer: int, norm: Norm, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inner, outer):
        layers += [nn.Conv2d(channels, outer, 3, padding=1, bias=norm == "none"), *_norm(norm, outer), nn.ReLU(True)]
    return nn.Sequential(*layers, *([nn.Dropout2d(dropout)] if dropout else []))


def _norm(norm: Norm, channels: int) -> list[nn.Module]:
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    if norm == "instance":
        return [nn.InstanceNorm2d(channels, affine=True)]
    if norm == "group":
        return [nn.GroupNorm(math.gcd(8, channels), channels)]
    return []
