"""The axis legend: B batch, C channels, H height, W width, K classes; and what one image with its labels is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

IGNORE = -1
"""Label of an unlabelled pixel (outside the image, unannotated): losses and counts skip it."""


@dataclass(frozen=True)
class Sample:
    """One image with its labels: `image` (C, H, W) float32, `labels` (H, W) int64, `maps` further (H, W) int64 maps."""

    image: Tensor
    labels: Tensor
    name: str
    pixel_um: float | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])


def channel_mean(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The mean (H, W) of an image's channels (C, H, W), of several each in its standard deviations from its mean."""
    wide = image.astype(np.float64)
    if len(wide) > 1:
        mean, std = wide.mean(axis=(1, 2), keepdims=True), wide.std(axis=(1, 2), keepdims=True)
        wide = (wide - mean) / np.where(std > 1e-9 * abs(mean), std, np.inf)
    return np.asarray(wide.mean(axis=0))


def compacted(ids: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Ids (H, W) as numbers 0 to n, in their order, and the id that each number stands for; what is no id is 0.

    Ids of annotations may be any numbers, and tables by id as long as the largest.
    """
    known, index = np.unique(np.append(np.zeros(1, ids.dtype), ids.clip(0)), return_inverse=True)
    return index[1:].reshape(ids.shape), known
