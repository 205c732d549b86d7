"""Predictions that differ from the ground truth by a known amount, for the classes background and cell.

Each function maps a sample to class indices (H, W).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.sample import Sample


def all_background(sample: Sample) -> Tensor:
    """No cells at all."""
    return torch.zeros_like(sample.labels)


def shrunken(sample: Sample, pixels: float) -> Tensor:
    """Cells without the pixels within a distance of the background; the image border does not count as background."""
    return torch.from_numpy(_distance(sample.labels > 0) > pixels).long()


def grown(sample: Sample, pixels: float) -> Tensor:
    """Cells, and all pixels within a distance of them."""
    return torch.from_numpy(_distance(sample.labels == 0) <= pixels).long()


def shifted(sample: Sample, pixels: int) -> Tensor:
    """All cells shifted to the right; the left edge is filled with background."""
    moved = torch.zeros_like(sample.labels)
    moved[:, pixels:] = sample.labels[:, : moved.shape[1] - pixels]
    return moved


def without_small(sample: Sample, diameter_px: float) -> Tensor:
    """The cells of the map `instances` whose area is at least that of a disc of a given diameter."""
    areas = torch.bincount(sample.maps["instances"].flatten())
    kept = 4 * areas / torch.pi >= diameter_px**2
    kept[0] = False
    return kept[sample.maps["instances"]].long()


def dead_as_live(sample: Sample) -> Tensor:
    """The ground truth, with the dead cells (of the map `dead`) as cells."""
    return ((sample.labels > 0) | (sample.maps["dead"] > 0)).long()


def without_image(sample: Sample, name: str) -> Tensor:
    """The ground truth, but no cells in the image of a given name."""
    return all_background(sample) if sample.name == name else sample.labels


def _distance(mask: Tensor) -> np.ndarray:
    """The distance in pixels from each pixel of the mask to the nearest one outside; infinite if there is none."""
    # SciPy's transform gives meaningless finite distances if no pixel is outside.
    inside = mask.numpy()
    if inside.all():
        return np.full(inside.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(inside))
