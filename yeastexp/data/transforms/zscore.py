"""Zero mean and unit standard deviation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from yeastexp.data.running_moments import RunningMoments, mean_and_std
from yeastexp.data.transforms.base import BasicTransform2D, rescaled
from yeastexp.errors import UserError
from yeastexp.registry import transform


@transform("zscore")
@dataclass(frozen=True)
class ZScore(BasicTransform2D):
    """(image - mean) / standard deviation, with the statistics of each image or of all training images.

    `per = "image"` needs no fit and holds on images of any value range; `per = "dataset"` keeps differences between
    images, with `mean` and `std` fitted on the training images unless they are given. A constant image becomes zero.
    """

    normalizes = True

    per: Literal["image", "dataset"] = "image"
    mean: float | None = None
    std: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.per == "image" and not self.mean is self.std is None:
            raise UserError("'mean' and 'std' are for per = 'dataset'; omit them or change 'per'", key="per")
        if (self.mean is None) != (self.std is None):
            raise UserError("needs 'mean' and 'std' together, or neither", key="mean" if self.std is None else "std")

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """Mean and standard deviation over all pixels of the training images, in float64."""
        if self.per == "image" or self.mean is not None:
            return {}
        moments = RunningMoments()
        for image in training_images:
            moments.add(image)
        if not moments.squares:
            raise UserError("all training images are one constant value; there is no standard deviation to divide by")
        return {"mean": moments.mean, "std": moments.std}

    def statistics(self, image: Iterable[Tensor]) -> tuple[float, float] | None:
        """Mean and standard deviation, where they are the image's own."""
        return mean_and_std(image) if self.per == "image" else None

    def image(self, image: Tensor, params: tuple[float, float] | None) -> Tensor:
        params = params or self.statistics([image])  # called by hand, the image is the whole one
        if params is None:
            assert self.mean is not None and self.std is not None, "fit comes first"
            return (image - self.mean) / self.std
        return rescaled(image, *params).float()
