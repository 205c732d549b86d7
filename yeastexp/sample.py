"""The axis legend: B batch, C channels, H height, W width, K classes; and what one image with its labels is."""

from __future__ import annotations

from dataclasses import dataclass, field

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
