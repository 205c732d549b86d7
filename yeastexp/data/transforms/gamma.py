"""A bent brightness curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rows import Rows, each, float32
from yeastexp.errors import UserError
from yeastexp.registry import transform


@transform("gamma")
@dataclass(frozen=True)
class Gamma(BasicTransform2D):
    """Raises values, as a share of the range from `low` to `high`, to a power between 1 / `max_gamma` and `max_gamma`.

    The power is drawn log-uniformly, with probability `p`. The range is by default that of values after `zscore`;
    values below it are set to its end, values above it go on along the curve.
    """

    max_gamma: Annotated[float, Field(gt=1, le=10)] = 1.5
    low: float = -3.0
    high: float = 3.0
    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise UserError(f"{self.low} is not below 'high', {self.high}", key="low")

    def draw(self, generator: np.random.Generator) -> float:
        power = float(self.max_gamma ** generator.uniform(-1, 1))
        return power if generator.random() < self.p else 1.0

    def image(self, image: Tensor, params: float) -> Tensor:
        return self.batch(image[None], [params])[0]

    def batch(self, images: Tensor, params: Sequence[float]) -> Tensor:
        powers = np.array(params)
        if not len(rows := np.flatnonzero(powers != 1)):
            return images
        chosen = Rows.of(images, rows, float32(powers[rows]))
        share = (chosen.images - self.low).div_(self.high - self.low).clamp_min_(0)
        if share.device.type == "cpu":  # whose last bits depend on where in memory a power is taken
            for one, power in zip(share, powers[rows].tolist(), strict=True):
                one.pow_(power)
        else:
            share.pow_(each(*chosen.numbers))
        return chosen.replaced(share.mul_(self.high - self.low).add_(self.low))
