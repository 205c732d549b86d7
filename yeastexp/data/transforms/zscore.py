"""Zero mean and unit standard deviation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.errors import UserError
from yeastexp.registry import transform


@transform("zscore")
@dataclass(frozen=True)
class ZScore(BasicTransform2D):
    """(image - mean) / standard deviation, with the figures of each image or of all training images.

    `per = "image"` needs no figures and holds on images of any value range; `per = "dataset"` keeps differences between
    images, with `mean` and `std` fitted on the training images unless they are given. A constant image becomes zero.
    """

    normalizes = True

    per: Literal["image", "dataset"] = "image"
    mean: float | None = None
    std: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.per == "image" and not self.mean is self.std is None:
            raise UserError("figures are for per = 'dataset'; drop them or change 'per'", key="per")
        if (self.mean is None) != (self.std is None):
            raise UserError("needs 'mean' and 'std' together, or neither", key="mean" if self.std is None else "std")

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """Mean and standard deviation over all pixels of the training images, in float64."""
        if self.per == "image" or self.mean is not None:
            return {}
        count, mean, squares = 0, 0.0, 0.0
        for image in training_images:
            variance, average = torch.var_mean(image.double(), correction=0)
            delta, total = float(average) - mean, count + image.numel()
            squares += float(variance) * image.numel() + delta**2 * count * image.numel() / total
            mean += delta * image.numel() / total
            count = total
        if not squares:
            raise UserError("all training images are one constant value; there is no standard deviation to divide by")
        return {"mean": mean, "std": math.sqrt(squares / count)}

    def image(self, image: Tensor, params: Any) -> Tensor:
        if self.per == "dataset":
            assert self.mean is not None and self.std is not None, "fit comes first"
            return (image - self.mean) / self.std
        deviation, mean = torch.std_mean(image.double(), correction=0)
        return ((image.double() - mean) / deviation.clamp_min(1e-12)).float()
