"""Bright on dark, or dark on bright."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.running_moments import mean_and_std
from yeastexp.data.transforms.base import BasicTransform2D, rescaled
from yeastexp.registry import transform


@transform("polarity")
@dataclass(frozen=True)
class Polarity(BasicTransform2D):
    """Mirrors an image's values at its mean where its skewness has the other sign than that of the training images.

    Skewness is the third central moment over the cubed standard deviation: bright cells or halos on a dark field give
    a positive one. An image is left alone where it is weaker than `min_skewness`, and all are where the training images
    do not agree on a sign of that strength, as those of a bright field seldom do. `sign` is fitted unless it is given;
    0 (or no fit) changes nothing.
    """

    min_skewness: Annotated[float, Field(ge=0, le=100)] = 1.0
    sign: Literal[-1, 0, 1] | None = None

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """The sign that all training images share."""
        if self.sign is not None:
            return {}
        signs = {self.sign_of([image]) for image in training_images}
        return {"sign": signs.pop() if len(signs) == 1 else 0}

    def sign_of(self, image: Iterable[Tensor]) -> int:
        """The sign of the skewness of an image in bands, 0 if it is weak."""
        mean, std = mean_and_std(image)
        skewness = _mean(rescaled(band, mean, std).pow(3) for band in image)
        return 0 if abs(skewness) < self.min_skewness else 1 if skewness > 0 else -1

    def statistics(self, image: Iterable[Tensor]) -> float | None:
        """The mean, if the image is to be mirrored at it."""
        if not self.sign or self.sign * self.sign_of(image) >= 0:
            return None
        return _mean(image)

    def image(self, image: Tensor, params: float | None) -> Tensor:
        return image if params is None else 2 * image.new_tensor(params) - image


def _mean(bands: Iterable[Tensor]) -> float:
    sums: list[float] = []
    count = 0
    for band in bands:
        sums.append(float(band.sum(dtype=torch.float64)))
        count += band.numel()
    return math.fsum(sums) / count
