"""Mean and standard deviation of values that come in parts."""

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
        """The standard deviation, over the count."""
        return math.sqrt(self.squares / self.count)

    def add(self, values: Tensor) -> None:
        """Take a part in."""
        variance, mean = torch.var_mean(values.double(), correction=0)
        self.merge(values.numel(), float(mean), float(variance) * values.numel())

    def merge(self, count: int, mean: float, squares: float) -> None:
        """Take a part in whose count, mean and sum of squared deviations are known."""
        delta, total = mean - self.mean, self.count + count
        self.squares += squares + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total


def mean_and_std(parts: Iterable[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation of all parts; of a single one to the last bit what PyTorch gives for it."""
    rest = iter(parts)
    first, second = next(rest), next(rest, None)
    if second is None:
        std, mean = torch.std_mean(first.double(), correction=0)
        return float(mean), float(std)
    moments = RunningMoments()
    for part in itertools.chain((first, second), rest):
        moments.add(part)
    return moments.mean, moments.std
