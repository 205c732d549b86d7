"""Light that is stronger on one side, or in the middle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rows import Rows
from yeastexp.registry import transform

Drawn = tuple[float, float, float]
"""Slopes along y and x, and the depth of a bowl, at `reach_px` from the centre."""


@transform("uneven_illumination")
@dataclass(frozen=True)
class UnevenIllumination(BasicTransform2D):
    """Adds a slope in any direction and a bowl, each up to ± `strength`, with probability `p`.

    The slope reaches its height, and the bowl its depth, `reach_px` from the patch's centre. `strength` is in standard
    deviations (after `zscore`).
    """

    strength: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    reach_px: Annotated[float, Field(ge=1, le=1e5)] = 96.0
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def draw(self, generator: np.random.Generator) -> Drawn:
        turn, slope, bowl = generator.uniform(0, 2 * math.pi), generator.random(), generator.uniform(-1, 1)
        if generator.random() >= self.p:
            return 0.0, 0.0, 0.0
        slope, bowl = slope * self.strength, bowl * self.strength
        return float(slope * math.sin(turn)), float(slope * math.cos(turn)), float(bowl)

    def image(self, image: Tensor, params: Drawn) -> Tensor:
        return self.batch(image[None], [params])[0]

    def batch(self, images: Tensor, params: Sequence[Drawn]) -> Tensor:
        if not len(rows := np.flatnonzero(np.any(params, axis=1))):
            return images
        down, along = (
            torch.stack([self._light(params[row], axis, n) for row in rows.tolist()])
            for axis, n in enumerate(images.shape[2:])
        )
        chosen = Rows.of(images, rows, down.numpy(), along.numpy())
        first, second = chosen.numbers
        return chosen.replaced(chosen.images + first[:, None, :, None] + second[:, None, None, :])

    def _light(self, params: Drawn, axis: int, length: int) -> Tensor:
        """What is added along an axis, on the host."""
        places = (torch.arange(length) - (length - 1) / 2) / self.reach_px
        return params[axis] * places + params[2] * places**2
