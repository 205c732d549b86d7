"""Shot noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rows import each
from yeastexp.errors import UserError
from yeastexp.randomness import draw_key, normal_fields, sent
from yeastexp.registry import transform

Drawn = tuple[float, int]


@transform("poisson_noise")
@dataclass(frozen=True)
class PoissonNoise(BasicTransform2D):
    """Adds noise whose variance grows with brightness, as counting photons does, with probability `p`.

    Assumes values with mean 0 and standard deviation 1 (after `zscore`) that stem from photon counts n (1 + c z), with
    c = `contrast` the standard deviation of the recorded image over its mean and n the photons of a mean pixel, drawn
    log-uniformly from `photons`. The Poisson law is taken as normal, which holds for 20 photons and more.
    """

    photons: tuple[Annotated[float, Field(ge=20)], Annotated[float, Field(le=1e9)]] = (100.0, 10_000.0)
    contrast: Annotated[float, Field(gt=0, le=10)] = 0.15
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        if self.photons[0] > self.photons[1]:
            raise UserError(
                f"{self.photons[0]} is above {self.photons[1]}; the fewer photons come first", key="photons"
            )

    def draw(self, generator: np.random.Generator) -> Drawn:
        photons = float(np.exp(generator.uniform(*np.log(self.photons))))
        return photons if generator.random() < self.p else float("inf"), draw_key(generator)

    def image(self, image: Tensor, params: Drawn) -> Tensor:
        return self.batch(image[None], [params])[0]

    def batch(self, images: Tensor, params: Sequence[Drawn]) -> Tensor:
        channels, height, width = images.shape[1:]
        noise = normal_fields([key for _, key in params], (channels, height, width), images.device)
        photons = torch.tensor([photons for photons, _ in params])
        (scale,) = sent(images.device, (self.contrast * photons.sqrt()).numpy())
        return images + noise * (1 + self.contrast * images).clamp_min(0).sqrt() / each(scale)
