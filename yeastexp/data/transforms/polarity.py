"""Bright on dark, or dark on bright."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.registry import transform


@transform("polarity")
@dataclass(frozen=True)
class Polarity(BasicTransform2D):
    """Mirrors an image's values at its mean where its skewness has the other sign than that of the training images.

    Skewness is the third central moment over the cubed standard deviation: bright cells or halos on a dark field give
    a positive one. An image is left alone where it is weaker than `least`, and all are where the training images do
    not agree on a sign of that strength, as those of a bright field seldom do. `sign` is fitted unless it is given;
    0 (or no fit) changes nothing.
    """

    least: Annotated[float, Field(ge=0, le=100)] = 1.0
    sign: Literal[-1, 0, 1] | None = None

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """The sign that all training images share."""
        if self.sign is not None:
            return {}
        signs = {self.sign_of(image) for image in training_images}
        return {"sign": signs.pop() if len(signs) == 1 else 0}

    def sign_of(self, image: Tensor) -> int:
        """The sign of an image's skewness, 0 where it is weak."""
        deviation, mean = torch.std_mean(image.double(), correction=0)
        skewness = float(((image.double() - mean) / deviation.clamp_min(1e-12)).pow(3).mean())
        return 0 if abs(skewness) < self.least else 1 if skewness > 0 else -1

    def image(self, image: Tensor, params: Any) -> Tensor:
        if not self.sign or self.sign * self.sign_of(image) >= 0:
            return image
        return 2 * image.mean(dtype=torch.float64).float() - image
