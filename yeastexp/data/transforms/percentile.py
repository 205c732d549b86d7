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

from yeastexp.data.normalization import PerChannel, one_or_each, per_channel
from yeastexp.data.running_moments import planes
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.rescaling import constant, rescaled
from yeastexp.errors import UserError
from yeastexp.registry import transform

Percent = Annotated[float, Field(ge=0, le=100)]


@transform("percentile")
@dataclass(frozen=True)
class Percentile(BasicTransform2D):
    """Takes the `low` and `high` percentile of values to 0 and 1, of each image or as a mean over the training images.

    Values outside go on along the line. `at_low` and `at_high` are the fitted values, unless they are given. Each
    channel has its percentiles, or all of them together where `joint`. A constant channel becomes zero.
    """

    normalizes = True

    low: Percent = 1.0
    high: Percent = 99.0
    per: Literal["image", "dataset"] = "image"
    at_low: PerChannel | None = None
    at_high: PerChannel | None = None
    joint: bool = False

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise UserError(f"{self.low} is not below 'high', {self.high}", key="low")
        if self.per == "image" and not self.at_low is self.at_high is None:
            raise UserError("'at_low' and 'at_high' are for per = 'dataset'; omit them or change 'per'", key="per")
        if (self.at_low is None) != (self.at_high is None):
            key = "at_low" if self.at_high is None else "at_high"
            raise UserError("needs 'at_low' and 'at_high' together, or neither", key=key)
        if self.at_low is not None and self.at_high is not None:
            low, high = np.asarray(self.at_low), np.asarray(self.at_high)
            if low.shape != high.shape or (low >= high).any():
                raise UserError(f"{self.at_low} is not below 'at_high', {self.at_high}", key="at_low")

    def fit(self, training_images: Iterable[Tensor]) -> dict[str, Any]:
        """The means of the training images' percentiles."""
        if self.per == "image" or self.at_low is not None:
            return {}
        ends = [percentiles([image], (self.low, self.high), self.joint) for image in training_images]
        low, high = np.mean(ends, axis=0).T.tolist()
        if any(at_low == at_high for at_low, at_high in zip(low, high, strict=True)):
            spreads = np.subtract(high, low).tolist()
            raise UserError(f"{constant(spreads)} no range to bring to 0 and 1")
        return {"at_low": one_or_each(low), "at_high": one_or_each(high)}

    def statistics(self, image: Iterable[Tensor]) -> list[list[float]] | None:
        """The two percentiles of each channel, where they are the image's own."""
        return percentiles(image, (self.low, self.high), self.joint) if self.per == "image" else None

    def image(self, image: Tensor, params: list[list[float]] | None) -> Tensor:
        params = params or self.statistics([image])  # called by hand, the image is the whole one
        if params is None:
            assert self.at_low is not None and self.at_high is not None, "fit comes first"
            per_channel(self.at_low, image)
            params = np.array([self.at_low, self.at_high]).reshape(2, -1).T.tolist()
        return rescaled(image, [low for low, _ in params], [high - low for low, high in params]).float()


Counts = npt.NDArray[np.int64]


def percentiles(image: Iterable[Tensor], percents: Sequence[float], joint: bool = False) -> list[list[float]]:
    """Percentiles of each channel of an image in bands (C, h, W), or of all channels `joint`ly.

    They are interpolated linearly: to the last bit `numpy.percentile` in float64. The values are never in memory
    together: they are counted by the upper half of their bits, then those around each percentile by the lower half.
    """
    uppers: list[Counts] = []
    for channels in _keys(image, joint):
        uppers = uppers or [np.zeros(1 << 16, np.int64) for _ in channels]
        for upper, keys in zip(uppers, channels, strict=True):
            upper += np.bincount(keys >> 16, minlength=1 << 16)
    last = int(uppers[0].sum()) - 1
    places = [percent / 100 * last for percent in percents]
    ranks = sorted({end for place in places for end in (math.floor(place), math.ceil(place))})
    halves = [{rank: int(np.searchsorted(upper.cumsum(), rank, side="right")) for rank in ranks} for upper in uppers]
    lowers = [{half: np.zeros(1 << 16, np.int64) for half in by_rank.values()} for by_rank in halves]
    for channels in _keys(image, joint):
        for lower, keys in zip(lowers, channels, strict=True):
            above = keys >> 16
            for half, counts in lower.items():
                counts += np.bincount(keys[above == half] & 0xFFFF, minlength=1 << 16)
    found = []
    for upper, by_rank, lower in zip(uppers, halves, lowers, strict=True):
        before = upper.cumsum() - upper
        at = {
            rank: _value(half << 16 | int(np.searchsorted(lower[half].cumsum(), rank - before[half], side="right")))
            for rank, half in by_rank.items()
        }
        found.append(
            [_between(at[math.floor(place)], at[math.ceil(place)], place - math.floor(place)) for place in places]
        )
    return found


def _between(low: float, high: float, share: float) -> float:
    """Rounded as numpy does it: from the nearer end."""
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def _keys(image: Iterable[Tensor], joint: bool) -> Iterator[npt.NDArray[np.uint32]]:
    """Float32 values (channels, pixels) as whole numbers in the same order."""
    for band in image:
        values = planes(band.cpu().contiguous(), joint).flatten(1)
        bits = values.numpy().view(np.uint32)
        yield np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value(key: int) -> float:
    bits = np.uint32(key ^ (1 << 31) if key >> 31 else ~key & 0xFFFFFFFF)
    return float(bits.view(np.float32))
