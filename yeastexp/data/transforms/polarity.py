"""Bright on dark, or dark on bright."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.normalization import one_or_each
from yeastexp.data.running_moments import mean_and_std
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rescaling import rescaled
from yeastexp.registry import transform

Sign = Literal[-1, 0, 1]


@transform("polarity")
@dataclass(frozen=True)
class Polarity(BasicTransform2D):
    """Mirrors an image's values at its mean where its skewness has the other sign than that of the training images.

    Skewness is the third central moment over the cubed standard deviation: bright cells or halos on a dark field give
    a positive one. An image is left alone where it is weaker than `min_skewness`, and all are where the training images
    do not agree on a sign of that strength, as those of a bright field seldom do. `sign` is fitted unless it is given;
    0 (or no fit) changes nothing. Each channel has its sign.
    """

    min_skewness: Annotated[float, Field(ge=0, le=100)] = 1.0
    sign: Sign | tuple[Sign, ...] | None = None

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """The sign that all training images share, of each channel."""
        if self.sign is not None:
            return {}
        by_channel = zip(*(self.signs_of([image]) for image in training_images), strict=True)
        return {"sign": one_or_each(signs[0] if len(set(signs)) == 1 else 0 for signs in by_channel)}

    def signs_of(self, image: Iterable[Tensor]) -> list[int]:
        """The sign of the skewness of each channel of an image in bands, 0 if it is weak."""
        means, deviations = zip(*mean_and_std(image), strict=True)
        skewness = _means(rescaled(band, means, deviations).pow(3) for band in image)
        return [0 if abs(value) < self.min_skewness else 1 if value > 0 else -1 for value in skewness]

    @property
    def changes_nothing(self) -> bool:
        """Whether it leaves all images alone."""
        return not np.any(self.sign or 0)

    def statistics(self, image: Iterable[Tensor]) -> list[float | None] | None:
        """The mean of each channel that is to be mirrored at it; None if none is."""
        if self.changes_nothing:
            return None
        signs = self.signs_of(image)
        opposed = (np.multiply(self.sign or 0, signs) < 0).tolist()
        return (
            [mean if other else None for mean, other in zip(_means(image), opposed, strict=True)]
            if any(opposed)
            else None
        )

    def image(self, image: Tensor, params: list[float | None] | None) -> Tensor:
        if params is None:
            return image
        mirrored = [
            channel if mean is None else 2 * image.new_tensor(mean) - channel
            for channel, mean in zip(image, params, strict=True)
        ]
        return torch.stack(mirrored)


def _means(bands: Iterable[Tensor]) -> list[float]:
    """The mean of each channel."""
    sums: list[list[float]] = []
    count = 0
    for band in bands:
        sums.append([float(channel.sum(dtype=torch.float64)) for channel in band])
        count += band[0].numel()
    return [math.fsum(parts) / count for parts in zip(*sums, strict=True)]
