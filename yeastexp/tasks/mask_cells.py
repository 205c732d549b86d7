"""Approximate cells from a mask, for models and thresholds that tell no cells apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.metrics.matching import f1, overlap
from yeastexp.sample import Sample
from yeastexp.tasks.watershed import Float, Labels, Watershed

Ids = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]

METHOD = "approximate (watershed of the mask)"
"""The phrase that is shown with such cells everywhere."""

DEPTHS_PX = (0.25, 0.5, 1.0)
SMOOTHINGS_PX = (0.5, 1.0, 2.0)

FITTED, FITTED_PX = 3, 512
"""Training images that choose how a mask is cut into cells, and the pixels of their sides that suffice."""

LEAST_AREA = 0.02
"""The share of the median area of true cells below which a region of a mask is no cell."""

FARTHEST_PX = 512
"""Longer distances count as this one, so that a pixel depends on at most so many rows above and below."""

ROWS_AROUND = 32
"""Rows above and below a band that are read at first: most cells are less than twice as wide."""


def middle(ids: npt.NDArray[np.int64], side_px: int) -> npt.NDArray[np.int64]:
    """Return the middle of ids (H, W), of at most so many pixels a side."""
    return ids[tuple(slice(start := max(0, (side - side_px) // 2), start + side_px) for side in ids.shape)]


@dataclass(frozen=True)
class MaskCells:
    """A watershed of the distance to the background, smoothed by a Gaussian of `smoothing_px`.

    Two tops of the distance are two cells if the highest pass between them is `depth_px` below the lower one. Cells
    that touch along more than a neck have one top, and become one. Regions of fewer pixels than `least_area` are none.
    What lies outside of the image counts as foreground. The defaults are for masks of which no true cells are known.
    """

    depth_px: float = 0.5
    smoothing_px: float = 1.0
    least_area: int = 1

    def cells(self, mask: Mask) -> Labels:
        """Return the cells of a mask (H, W), numbered from 1 in reading order."""
        labels = np.zeros(mask.shape, np.int32)
        self.fill(lambda rows: mask[rows], lambda: labels)
        return labels

    def of_labels(self, labels: Tensor) -> Tensor:
        """Return the cells (H, W) of all classes but the first, from labels (H, W)."""
        return torch.from_numpy(self.cells(labels.cpu().numpy() > 0).astype(np.int64)).to(labels.device)

    def fill(self, mask: Callable[[slice], Mask], labels: Callable[[], npt.NDArray[Any]]) -> int:
        """Write the cells of a mask into an array (H, W) and return how many there are.

        `mask` gives any rows of the mask. `labels` gives the array, and is called again for each band of rows, because
        the array may lie in a file.
        """
        # A pass of any height divides, if it is deep enough: distances, unlike hills, have no height that all passes
        # within a cell exceed.
        rule = Watershed(0.0, self.depth_px, self.least_area, 0.0, self.smoothing_px, highest_pass=np.inf)
        distance = _Distance(mask, len(labels()))
        return rule.fill(distance.and_foreground, labels)

    @classmethod
    def fitted_on(cls, samples: Iterable[Sample]) -> MaskCells:
        """Return the options fitted on the middles of the first samples with ids of cells; the defaults without any."""
        # Reading stops at the first sample without a map of ids: a data set has it for all samples or for none.
        images = list[Ids]()
        for sample in itertools.takewhile(lambda sample: "instances" in sample.maps, samples):
            ids = sample.maps["instances"].clamp_min(0).numpy()
            if (part := middle(ids, FITTED_PX)).any():
                images.append(part)
            if len(images) == FITTED:
                break
        if not images:
            return cls()
        areas = np.concatenate([np.unique(ids[ids > 0], return_counts=True)[1] for ids in images])
        return replace(cls.fitted(images), least_area=max(1, round(LEAST_AREA * float(np.median(areas)))))

    @classmethod
    def fitted(cls, images: Iterable[Ids]) -> MaskCells:
        """Return the depth and the smoothing that give most of the true cells back from their own mask."""
        listed = list(images)

        def score(candidate: MaskCells) -> float:
            return f1(overlap(ids, candidate.cells(ids > 0)) for ids in listed)

        return max((cls(*options) for options in itertools.product(DEPTHS_PX, SMOOTHINGS_PX)), key=score)


@dataclass
class _Distance:
    """Distances to the background in any rows of a mask, equal to those of the whole mask to the bit."""

    mask: Callable[[slice], Mask]
    height: int
    around: int = ROWS_AROUND

    def and_foreground(self, rows: slice) -> tuple[Float, Float]:
        """Return the distances in some rows (h, W), and a map of 1 in the foreground and 0 elsewhere (h, W)."""
        # Rows are added until no background in unread ones could be nearer than what was found. The number that it took
        # is kept for the next band, which will mostly need as many.
        while True:
            wide = slice(max(rows.start - self.around, 0), min(rows.stop + self.around, self.height))
            mask = self.mask(wide)
            # Without any background SciPy's distances would be to a pixel outside of the array.
            if mask.all():
                distance = np.full(mask.shape, FARTHEST_PX, np.float32)
            else:
                distance = np.minimum(ndimage.distance_transform_edt(mask), FARTHEST_PX).astype(np.float32)
            inner = slice(rows.start - wide.start, rows.stop - wide.start)
            row = np.arange(rows.start, rows.stop)
            # Background in rows that were not read cannot be nearer than they are.
            known = np.full(len(row), np.inf)
            if wide.start:
                known = row - wide.start + 1.0
            if wide.stop < self.height:
                known = np.minimum(known, wide.stop - row)
            if self.around >= FARTHEST_PX or (distance[inner].max(axis=1) <= known).all():
                return distance[inner], mask[inner].astype(np.float32)
            self.around = min(2 * self.around, FARTHEST_PX)
