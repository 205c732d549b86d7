"""Mean and standard deviation of values that are given in parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor


class RunningMoments:
    """Count, mean and sum of squared deviations of all parts so far (Chan, Golub and LeVeque 1983), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    @property
    def std(self) -> float:
        """The standard deviation with divisor `count`."""
        return math.sqrt(self.squares / self.count)

    def add(self, values: Tensor) -> None:
        """Add values to the moments."""
        variance, mean = torch.var_mean(values.double(), correction=0)
        self.merge(values.numel(), float(mean), float(variance) * values.numel())

    def merge(self, count: int, mean: float, squares: float) -> None:
        """Add values of which count, mean and sum of squared deviations from that mean are given."""
        delta, total = mean - self.mean, self.count + count
        self.squares += squares + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total


def mean_and_std(image: Iterable[Tensor], joint: bool = False) -> list[tuple[float, float]]:
    """Mean and standard deviation of each channel of an image in bands (C, h, W), or of all channels `joint`ly.

    Of a single band they are to the last bit what PyTorch gives for it.
    """
    rest = iter(image)
    first, second = next(rest), next(rest, None)
    if second is None:
        moments = (torch.std_mean(plane.double(), correction=0) for plane in planes(first, joint))
        return [(float(mean), float(std)) for std, mean in moments]
    return [(moments.mean, moments.std) for moments in moments_of(itertools.chain((first, second), rest), joint)]


def moments_of(parts: Iterable[Tensor], joint: bool = False) -> list[RunningMoments]:
    """The moments of each channel of images or bands (C, H, W), or of all channels `joint`ly."""
    moments: list[RunningMoments] = []
    for part in parts:
        moments = moments or [RunningMoments() for _ in planes(part, joint)]
        for channel, plane in zip(moments, planes(part, joint), strict=True):
            channel.add(plane)
    return moments


def planes(image: Tensor, joint: bool = False) -> Tensor:
    """A view of an image (C, H, W) with the values of one statistic in each entry: its channels, or (`joint`) all."""
    return image[None] if joint else image
