"""Defocus, as far as a Gaussian is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rows import Rows
from yeastexp.randomness import sent
from yeastexp.registry import transform
from yeastexp.system import full_precision


@transform("gaussian_blur")
@dataclass(frozen=True)
class GaussianBlur(BasicTransform2D):
    """Smooths with a Gaussian whose standard deviation is drawn between 0 and `sigma_px`, with probability `p`.

    The kernel reaches four standard deviations; beyond the image's border pixels are mirrored in training patches, and
    the last one is repeated in whole images.
    """

    sigma_px: Annotated[float, Field(gt=0, le=20)] = 1.5
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    @property
    def margin_px(self) -> int:  # type: ignore[override]  # a number to those who read it
        """How far the widest kernel reaches."""
        return math.ceil(4 * self.sigma_px)

    def draw(self, generator: np.random.Generator) -> float:
        return float(generator.uniform(0, self.sigma_px) * (generator.random() < self.p))

    def image(self, image: Tensor, params: float) -> Tensor:
        reach = math.ceil(4 * params)
        if not reach:
            return image
        (kernel,) = sent(image.device, _kernel(params, reach).numpy())
        smooth = functional.pad(image[:, None], (reach, reach, reach, reach), mode="replicate")
        with full_precision.in_full(image.device):
            smooth = functional.conv2d(smooth, kernel.view(1, 1, -1, 1))
            return functional.conv2d(smooth, kernel.view(1, 1, 1, -1))[:, 0]

    def batch(self, images: Tensor, params: Sequence[float]) -> Tensor:
        reach = math.ceil(4 * max(params))
        if images.device.type == "cpu" or not reach:  # which smooths them faster one by one
            return super().batch(images, params)
        rows = np.flatnonzero(params)
        kernels = torch.stack([_kernel(params[row], reach) for row in rows.tolist()])
        chosen = Rows.of(images, rows, kernels.numpy())
        count, channels = len(rows), images.shape[1]
        smooth = functional.pad(chosen.images, (reach, reach, reach, reach), mode="replicate").flatten(0, 1)[None]
        kernel = chosen.numbers[0].repeat_interleave(channels, 0) if channels > 1 else chosen.numbers[0]
        with full_precision.in_full(images.device):
            smooth = functional.conv2d(smooth, kernel[:, None, :, None], groups=count * channels)
            smooth = functional.conv2d(smooth, kernel[:, None, None, :], groups=count * channels)
        return chosen.replaced(smooth.view(count, *images.shape[1:]))


def _kernel(sigma: float, reach: int) -> Tensor:
    """Weights from `-reach` to `reach`, on the host; none where a Gaussian of this width is cut off."""
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (places / sigma) ** 2) * (places.abs() <= math.ceil(4 * sigma))
    return weights / weights.sum()
