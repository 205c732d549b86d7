"""Predictions that are wrong by a known amount, made of the truth: of two classes, background and cell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.sample import Sample

Degradation = Callable[[Sample], Tensor]
"""From a sample with its truth to class indices (H, W)."""


def all_background(sample: Sample) -> Tensor:
    """No cell anywhere."""
    return torch.zeros_like(sample.labels)


def shrunken(pixels: float) -> Degradation:
    """Cells without what lies within so many pixels of the background; beyond the border of the image is none."""

    def degraded(sample: Sample) -> Tensor:
        return _where(_distance(sample.labels > 0) > pixels)

    return degraded


def grown(pixels: float) -> Degradation:
    """Cells with what lies within so many pixels of them."""

    def degraded(sample: Sample) -> Tensor:
        return _where(_distance(sample.labels == 0) <= pixels)

    return degraded


def shifted(pixels: int) -> Degradation:
    """All cells so many pixels to the right; what comes in from the left is background."""

    def degraded(sample: Sample) -> Tensor:
        moved = torch.zeros_like(sample.labels)
        moved[:, pixels:] = sample.labels[:, : moved.shape[1] - pixels]
        return moved

    return degraded


def without_small(diameter_px: float) -> Degradation:
    """Only the cells (of the map `instances`) whose area is that of a circle at least so wide."""

    def degraded(sample: Sample) -> Tensor:
        areas = torch.bincount(sample.maps["instances"].flatten())
        kept = 4 * areas / torch.pi >= diameter_px**2
        kept[0] = False
        return kept[sample.maps["instances"]].long()

    return degraded


def dead_as_live(sample: Sample) -> Tensor:
    """The truth, and every cell of the map `dead` as well."""
    return ((sample.labels > 0) | (sample.maps["dead"] > 0)).long()


def without_image(name: str) -> Degradation:
    """The truth, but nothing in the image of this name."""

    def degraded(sample: Sample) -> Tensor:
        return all_background(sample) if sample.name == name else sample.labels

    return degraded


def _distance(mask: Tensor) -> np.ndarray:
    """From each pixel of the mask to the nearest that is none of it, in pixels; infinite where all are."""
    found = mask.numpy()
    if found.all():
        return np.full(found.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(found))


def _where(mask: np.ndarray) -> Tensor:
    return torch.from_numpy(mask.astype(np.int64))
