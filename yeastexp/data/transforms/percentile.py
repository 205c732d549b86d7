"""A standard range by percentiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor

from yeastexp.data.transforms.base import BasicTransform2D, rescaled
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
            raise UserError("'at_low' and 'at_high' are for per = 'dataset'; omit them or change 'per'", key="per")
        if (self.at_low is None) != (self.at_high is None):
            key = "at_low" if self.at_high is None else "at_high"
            raise UserError("needs 'at_low' and 'at_high' together, or neither", key=key)
        if self.at_low is not None and self.at_high is not None and self.at_low >= self.at_high:
            raise UserError(f"{self.at_low} is not below 'at_high', {self.at_high}", key="at_low")

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """The means of the training images' percentiles."""
        if self.per == "image" or self.at_low is not None:
            return {}
        low, high = np.mean([percentiles([image], (self.low, self.high)) for image in training_images], axis=0)
        if low == high:
            raise UserError("all training images are one constant value; there is no range to bring to 0 and 1")
        return {"at_low": float(low), "at_high": float(high)}

    def statistics(self, image: Iterable[Tensor]) -> list[float] | None:
        """The two percentiles, where they are the image's own."""
        return percentiles(image, (self.low, self.high)) if self.per == "image" else None

    def image(self, image: Tensor, params: list[float] | None) -> Tensor:
        # Called by hand, the image is the whole one.
        low, high = params or self.statistics([image]) or (self.at_low, self.at_high)
        assert low is not None and high is not None, "fit comes first"
        return rescaled(image, low, high - low).float()


def percentiles(image: Iterable[Tensor], percents: Sequence[float]) -> list[float]:
    """Percentiles of an image in bands, interpolated linearly: to the last bit `numpy.percentile` of all in float64.

    The values are never in memory together: they are counted by the upper half of their bits, then those around each
    percentile by the lower half.
    """
    upper = np.zeros(1 << 16, np.int64)
    for keys in _keys(image):
        upper += np.bincount(keys >> 16, minlength=1 << 16)
    last = int(upper.sum()) - 1
    places = [percent / 100 * last for percent in percents]
    ranks = sorted({end for place in places for end in (math.floor(place), math.ceil(place))})
    ends = upper.cumsum()
    halves = {rank: int(np.searchsorted(ends, rank, side="right")) for rank in ranks}
    lower = {half: np.zeros(1 << 16, np.int64) for half in halves.values()}
    for keys in _keys(image):
        above = keys >> 16
        for half, counts in lower.items():
            counts += np.bincount(keys[above == half] & 0xFFFF, minlength=1 << 16)
    at = {}
    for rank, half in halves.items():
        before = ends[half] - upper[half]
        at[rank] = _value(half << 16 | int(np.searchsorted(lower[half].cumsum(), rank - before, side="right")))
    return [_between(at[math.floor(place)], at[math.ceil(place)], place - math.floor(place)) for place in places]


def _between(low: float, high: float, share: float) -> float:
    """Rounded as numpy does it: from the nearer end."""
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def _keys(image: Iterable[Tensor]) -> Iterator[npt.NDArray[np.uint32]]:
    """Float32 values as whole numbers in the same order."""
    for band in image:
        bits = band.cpu().contiguous().numpy().view(np.uint32).ravel()
        yield np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value(key: int) -> float:
    bits = np.uint32(key ^ (1 << 31) if key >> 31 else ~key & 0xFFFFFFFF)
    return float(bits.view(np.float32))
