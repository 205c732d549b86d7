"""A straight brightness curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rows import each, float32
from yeastexp.randomness import sent
from yeastexp.registry import transform


@transform("brightness_contrast")
@dataclass(frozen=True)
class BrightnessContrast(BasicTransform2D):
    """Multiplies by 1 / `contrast` to `contrast`, then adds up to ± `brightness`, with probability `p`.

    Both are meant for values with mean 0 and standard deviation 1 (after `zscore`): the factor is about the mean, and
    brightness is in standard deviations. The factor is drawn log-uniformly.
    """

    brightness: Annotated[float, Field(ge=0, le=1e6)] = 0.3
    contrast: Annotated[float, Field(ge=1, le=10)] = 1.4
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def draw(self, generator: np.random.Generator) -> tuple[float, float]:
        factor, shift = self.contrast ** generator.uniform(-1, 1), generator.uniform(-1, 1) * self.brightness
        return (float(factor), float(shift)) if generator.random() < self.p else (1.0, 0.0)

    def image(self, image: Tensor, params: tuple[float, float]) -> Tensor:
        return self.batch(image[None], [params])[0]

    def batch(self, images: Tensor, params: Sequence[tuple[float, float]]) -> Tensor:
        factors, shifts = sent(images.device, *float32(params).T.copy())
        return images * each(factors) + each(shifts)
