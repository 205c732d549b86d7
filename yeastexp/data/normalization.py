"""Values of images between one normalisation and another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def rescaled(image: Tensor, stored: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None) -> Tensor:
    """An image stored with one normalisation (or none), as it would be with another (or none)."""
    if stored == wanted:
        return image
    if stored:
        image = image * stored["std"] + stored["mean"]
    return (image - wanted["mean"]) / wanted["std"] if wanted else image


@dataclass(frozen=True)
class Values:
    """The smallest and the largest value of images as they were recorded."""

    low: float
    high: float

    @classmethod
    def of(cls, images: Iterable[Tensor], normalization: Mapping[str, Any] | None) -> Values:
        """Of images (C, H, W) that are stored with some normalisation, or none."""
        stored = [torch.stack(image.aminmax()) for image in images]
        return cls.between(stored, normalization)

    @classmethod
    def between(cls, extremes: Sequence[Tensor], normalization: Mapping[str, Any] | None) -> Values:
        """From the two ends of each image."""
        ends = torch.stack(torch.stack(list(extremes)).aminmax())
        low, high = rescaled(ends, normalization, None).tolist()
        return cls(low, high)
