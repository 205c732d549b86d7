"""Blocks that the networks share: convolutions with their norms, padding, bilinear upsampling."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from yeastexp.errors import UserError

Norm = Literal["batch", "group", "instance", "none"]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm of (B, C, H, W); raises UserError in training if a channel has a single value, hence no variance."""

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features[:, 0].numel() == 1:
            raise UserError(
                "[patches] size: a batch of one patch leaves batch norm a single pixel at the model's coarsest level; "
                "use larger patches, a larger batch, fewer [model] levels or another norm"
            )
        return super().forward(features)


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm of (B, C, H, W) that accepts an image of one pixel, unlike PyTorch's: the result is the bias."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.instance_norm(features, self.weight, self.bias, None, None, True, 0.0, self.eps, False)


class GroupNorm(nn.GroupNorm):
    """Group norm of (B, C, H, W) that accepts a group of one value, unlike PyTorch's: the result is the bias."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.group_norm(features, self.num_groups, self.weight, self.bias, self.eps)


def norms(norm: Norm, channels: int) -> list[nn.Module]:
    """Return the layer of a norm, if any; group norm has as many groups as gcd(8, channels)."""
    if norm == "batch":
        return [BatchNorm(channels)]
    if norm == "instance":
        return [InstanceNorm(channels, affine=True)]
    if norm == "group":
        return [GroupNorm(math.gcd(8, channels), channels)]
    return []


def convolution(inner: int, outer: int, side: int, norm: Norm, stride: int = 1) -> list[nn.Module]:
    """Return a zero-padded convolution and its norm; it has a bias only without a norm."""
    bias = norm == "none"
    return [nn.Conv2d(inner, outer, side, stride, side // 2, bias=bias), *norms(norm, outer)]


def double_convolution(
    inner: int, outer: int, norm: Norm, dropout: float = 0.0, residual: bool = False, stride: int = 1
) -> nn.Sequential:
    """Return two 3×3 convolutions, the first with a stride, each with norm and ReLU.

    With `residual` a shortcut is added before the last ReLU; with `dropout` whole channels are dropped at the end.
    """
    first = convolution(inner, outer, 3, norm, stride)
    second = convolution(outer, outer, 3, norm)
    last = [nn.Dropout2d(dropout)] if dropout else []
    if not residual:
        return nn.Sequential(*first, nn.ReLU(True), *second, nn.ReLU(True), *last)
    branch = nn.Sequential(*first, nn.ReLU(True), *second)
    project = inner != outer or stride != 1
    return nn.Sequential(Residual(branch, convolution(inner, outer, 1, norm, stride) if project else []), *last)


class Residual(nn.Module):
    """ReLU(branch(x) + shortcut(x)); a shortcut without layers is the identity."""

    def __init__(self, branch: nn.Module, shortcut: list[nn.Module]) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.branch(features) + self.shortcut(features), inplace=True)


def extended(images: Tensor, multiple: int) -> Tensor:
    """Return images (B, C, H, W) with the last row and column repeated until both sides are multiples of a number."""
    # At the far sides only: padding on both sides would move the grid of poolings by an amount that depends on the
    # size, and tiles would have another grid than the whole image.
    # An image needs no gradient, so the backward pass of this (slow on CUDA, where it is deterministic) never runs.
    height, width = images.shape[-2:]
    return functional.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


class Bilinear(nn.Module):
    """Bilinear upsampling of (B, K, H, W) by an even factor: `interpolate` without aligned corners.

    A transposed convolution with fixed weights, for each class separately. It is twice as fast as `interpolate` on a
    CPU (measured at sizes where it matters), and CUDA has a deterministic kernel for its gradient; for that of
    `interpolate` PyTorch only has a slower substitute.
    """

    kernel: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        hat = 1 - ((torch.arange(2 * factor) + 0.5) / factor - 1).abs()
        self.register_buffer("kernel", torch.outer(hat, hat)[None, None], persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        classes = scores.shape[1]
        # The border is repeated, as `interpolate` does implicitly; what the copies contribute beyond it is cropped.
        bordered = functional.pad(scores, (1, 1, 1, 1), mode="replicate")
        kernels = self.kernel.expand(classes, 1, -1, -1)
        cut = self.factor + self.factor // 2
        return functional.conv_transpose2d(bordered, kernels, stride=self.factor, padding=cut, groups=classes)
