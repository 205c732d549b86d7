"""Bright to dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rows import each
from yeastexp.randomness import sent
from yeastexp.registry import transform


@transform("invert_contrast")
@dataclass(frozen=True)
class InvertContrast(BasicTransform2D):
    """Changes the sign of all values with probability `p`: meant for values about 0, as after `zscore`."""

    p: Annotated[float, Field(ge=0, le=1)] = 0.5

    def draw(self, generator: np.random.Generator) -> bool:
        return bool(generator.random() < self.p)

    def image(self, image: Tensor, params: bool) -> Tensor:
        return self.batch(image[None], [params])[0]

    def batch(self, images: Tensor, params: Sequence[bool]) -> Tensor:
        (signs,) = sent(images.device, np.where(params, -1, 1).astype(np.float32))
        return images * each(signs) if any(params) else images
