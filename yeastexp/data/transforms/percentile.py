"""A standard range by percentiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.errors import UserError
from yeastexp.registry import transform

Percent = Annotated[float, Field(ge=0, le=100)]


@transform("percentile")
@dataclass(frozen=True)
class Percentile(BasicTransform2D):
    """Takes the `low` and `high` percentile of values to 0 and 1, of each image or as a mean over the training images.

    Values outside go on along the line. `at_low` and `at_high` are the fitted values, unless they are given. A constant
    image becomes zero.
    """

    normalizes = True

    low: Percent = 1.0
    high: Percent = 99.0
    per: Literal["image", "dataset"] = "image"
    at_low: float | None = None
    at_high: float | None = None

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise UserError(f"{self.low} is not below 'high', {self.high}", key="low")
        if self.per == "image" and not self.at_low is self.at_high is None:
            raise UserError("figures are for per = 'dataset'; drop them or change 'per'", key="per")
        if (self.at_low is None) != (self.at_high is None):
            key = "at_low" if self.at_high is None else "at_high"
            raise UserError("needs 'at_low' and 'at_high' together, or neither", key=key)
        if self.at_low is not None and self.at_high is not None and self.at_low >= self.at_high:
            raise UserError(f"{self.at_low} is not below 'at_high', {self.at_high}", key="at_low")

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """The means of the training images' percentiles."""
        if self.per == "image" or self.at_low is not None:
            return {}
        found = np.mean([self.figures(image) for image in training_images], axis=0)
        if found[0] == found[1]:
            raise UserError("all training images are one constant value; there is no range to bring to 0 and 1")
        return {"at_low": float(found[0]), "at_high": float(found[1])}

    def figures(self, image: Tensor) -> tuple[float, float]:
        """The two percentiles of an image, interpolated linearly."""
        low, high = np.percentile(image.cpu().numpy().astype(np.float64), [self.low, self.high])
        return float(low), float(high)

    def image(self, image: Tensor, params: Any) -> Tensor:
        low, high = self.figures(image) if self.per == "image" else (self.at_low, self.at_high)
        assert low is not None and high is not None, "fit comes first"
        return ((image.double() - low) / max(high - low, 1e-12)).float()
