"""Zero mean and unit standard deviation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from yeastexp.data.normalization import PerChannel, one_or_each, per_channel
from yeastexp.data.running_moments import mean_and_std, moments_of
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rescaling import constant, rescaled
from yeastexp.errors import UserError
from yeastexp.registry import transform

Positive = Annotated[float, Field(gt=0)]


@transform("zscore")
@dataclass(frozen=True)
class ZScore(BasicTransform2D):
    """(image - mean) / standard deviation, with the statistics of each image or of all training images.

    `per = "image"` needs no fit and holds on images of any value range; `per = "dataset"` keeps differences between
    images, with `mean` and `std` fitted on the training images unless they are given. Each channel has its statistics,
    or all of them together where `joint`. A constant channel becomes zero.
    """

    normalizes = True

    per: Literal["image", "dataset"] = "image"
    mean: PerChannel | None = None
    std: Positive | tuple[Positive, ...] | None = None
    joint: bool = False

    def __post_init__(self) -> None:
        if self.per == "image" and not self.mean is self.std is None:
            raise UserError("'mean' and 'std' are for per = 'dataset'; omit them or change 'per'", key="per")
        if (self.mean is None) != (self.std is None):
            raise UserError("needs 'mean' and 'std' together, or neither", key="mean" if self.std is None else "std")

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """Mean and standard deviation over all pixels of the training images, in float64."""
        if self.per == "image" or self.mean is not None:
            return {}
        moments = moments_of(training_images, self.joint)
        if not all(channel.squares for channel in moments):
            raise UserError(f"{constant([channel.squares for channel in moments])} no standard deviation to divide by")
        return {
            "mean": one_or_each(channel.mean for channel in moments),
            "std": one_or_each(channel.std for channel in moments),
        }

    def statistics(self, image: Iterable[Tensor]) -> list[tuple[float, float]] | None:
        """Mean and standard deviation of each channel, where they are the image's own."""
        return mean_and_std(image, self.joint) if self.per == "image" else None

    def image(self, image: Tensor, params: list[tuple[float, float]] | None) -> Tensor:
        params = params or self.statistics([image])  # called by hand, the image is the whole one
        if params is None:
            assert self.mean is not None and self.std is not None, "fit comes first"
            return (image - per_channel(self.mean, image)) / per_channel(self.std, image)
        means, deviations = zip(*params, strict=True)
        return rescaled(image, means, deviations).float()
