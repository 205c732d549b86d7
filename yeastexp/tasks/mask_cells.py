"""Approximate cells from a mask: what a model, or a threshold, that knows no cells can say of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from yeastexp.metrics.matching import f1, overlap
from yeastexp.tasks.watershed import Labels, Watershed

Ids = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]

DEPTHS_PX = (0.25, 0.5, 1.0)
SMOOTHINGS_PX = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class MaskCells:
    """A watershed of the distance to the background, smoothed by a Gaussian of `smoothing_px`.

    Two tops of the distance are two cells if the highest pass between them is `depth_px` below the lower one. Cells
    that touch along more than a neck have one top, and become one.
    """

    depth_px: float = 0.5
    smoothing_px: float = 1.0

    def cells(self, mask: Mask) -> Labels:
        """The cells of a mask (H, W), numbered from 1 in reading order."""
        distance = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
        rule = Watershed(0.0, self.depth_px, 1, 0.0, self.smoothing_px, highest_pass=np.inf)
        return rule.cells(distance.astype(np.float32), mask.astype(np.float32))

    @classmethod
    def fitted(cls, images: Iterable[Ids]) -> MaskCells:
        """The depth and the smoothing that give most of the true cells back from their own mask."""
        listed = list(images)

        def score(candidate: MaskCells) -> float:
            return f1(overlap(ids, candidate.cells(ids > 0)) for ids in listed)

        return max((cls(*options) for options in itertools.product(DEPTHS_PX, SMOOTHINGS_PX)), key=score)
