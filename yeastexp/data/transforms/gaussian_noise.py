"""Noise of the same strength everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rows import Rows, each, float32
from yeastexp.randomness import draw_key, normal_fields
from yeastexp.registry import transform

Drawn = tuple[float, int]


@transform("gaussian_noise")
@dataclass(frozen=True)
class GaussianNoise(BasicTransform2D):
    """Adds independent normal noise whose standard deviation is drawn between 0 and `std`, with probability `p`.

    `std` is in units of the image's values: after `zscore`, of the image's own standard deviation.
    """

    std: Annotated[float, Field(gt=0, le=1e6)] = 0.2
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def draw(self, generator: np.random.Generator) -> Drawn:
        strength = generator.uniform(0, self.std) * (generator.random() < self.p)
        return float(strength), draw_key(generator)

    def image(self, image: Tensor, params: Drawn) -> Tensor:
        return self.batch(image[None], [params])[0]

    def batch(self, images: Tensor, params: Sequence[Drawn]) -> Tensor:
        rows = np.array([row for row, (strength, _) in enumerate(params) if strength])
        if not len(rows):
            return images
        strengths, keys = zip(*(params[row] for row in rows), strict=True)
        channels, height, width = images.shape[1:]
        chosen = Rows.of(images, rows, float32(strengths))
        noise = normal_fields(keys, (channels, height, width), images.device).mul_(each(*chosen.numbers))
        return chosen.replaced(noise.add_(chosen.images))
