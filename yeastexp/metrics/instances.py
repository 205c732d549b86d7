"""Metrics of individual cells (instances), from integer counts of each image.

The functions take the `Overlap` of two label images, as in `average_precision(overlap(truth, predicted))`; the metrics
ask for the map `instances` and for `instances` of the prediction. An image without cells in ground truth and prediction
has no score; one with cells in only one of them scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from yeastexp.metrics.matching import Ints, Overlap, annotated_cells, matches, overlap
from yeastexp.metrics.pixels import SHARE, PerImageMetric
from yeastexp.registry import metric

PERCENTS = tuple(range(50, 100, 5))
"""The IoUs, in per cent, that `average_precision` is taken at."""

BILLION = 10**9
"""IoUs are summed in billionths, so that sums are whole numbers that do not depend on their order."""


@dataclass(frozen=True)
class Detections:
    """True positives, false positives and false negatives at each of `PERCENTS`, (10,)."""

    true_positives: Ints
    false_positives: Ints
    false_negatives: Ints

    @property
    def average_precision(self) -> npt.NDArray[np.float64]:
        """TP / (TP + FP + FN) at each IoU, (10,); NaN if there is no cell."""
        cells = self.true_positives + self.false_positives + self.false_negatives
        return np.where(cells > 0, self.true_positives / np.maximum(cells, 1), np.nan)

    def at(self, percent: int) -> float:
        """The average precision at one IoU: `at(50)` is AP50."""
        return float(self.average_precision[PERCENTS.index(percent)])

    @property
    def mean(self) -> float:
        """The mean over the ten IoUs."""
        return float(self.average_precision.mean())


def average_precision(table: Overlap) -> Detections:
    """Count the cells matched one to one at IoUs of at least .50, .55, … .95 (Caicedo 2019, Nature Methods 16)."""
    hits = np.array([len(matches(table, percent)) for percent in PERCENTS], dtype=np.int64)
    return Detections(hits, len(table.predicted_ids) - hits, len(table.true_ids) - hits)


@dataclass(frozen=True)
class PanopticCounts:
    """The summed IoU of the matches in billionths, and the numbers of matches, false and missed cells."""

    iou: int
    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def segmentation(self) -> float:
        """SQ, the mean IoU of the matches; 0 without matches, NaN without cells."""
        return self._ratio(self.iou / BILLION, self.true_positives)

    @property
    def recognition(self) -> float:
        """RQ, the F1 score of the matches: TP / (TP + FP / 2 + FN / 2)."""
        return self._ratio(self.true_positives, self._cells)

    @property
    def panoptic(self) -> float:
        """PQ, the product of SQ and RQ: the summed IoU / (TP + FP / 2 + FN / 2)."""
        return self._ratio(self.iou / BILLION, self._cells)

    @property
    def _cells(self) -> float:
        return self.true_positives + (self.false_positives + self.false_negatives) / 2

    def _ratio(self, part: float, whole: float) -> float:
        return (part / whole if whole else 0.0) if self._cells else math.nan


def panoptic_quality(table: Overlap) -> PanopticCounts:
    """Count the cells matched at IoUs above one half, and add up the matches' IoUs (Kirillov et al. 2019, CVPR)."""
    # Cells of one image do not overlap, so that above one half each has a single partner: no assignment is needed. At
    # exactly one half it may have two, which is why the definition excludes it.
    pairs = np.flatnonzero(2 * table.shared > table.union)
    cells = len(table.predicted_ids), len(table.true_ids)
    return PanopticCounts(_billionths(table, pairs), len(pairs), *(each - len(pairs) for each in cells))


@dataclass(frozen=True)
class SegCounts:
    """The summed IoU of the true cells in billionths, and how many cells are true and predicted."""

    iou: int
    true: int
    predicted: int

    @property
    def score(self) -> float:
        """The mean IoU over the true cells; 0 if there are only false cells, NaN if there are no cells at all.

        False cells beside true ones do not change it.
        """
        return self.iou / BILLION / max(self.true, 1) if self.true or self.predicted else math.nan


def seg(table: Overlap) -> SegCounts:
    """SEG of the Cell Tracking Challenge: the IoU of each true cell with the predicted one that has most of it.

    It is 0 for a true cell of which no predicted cell has more than half (Maška et al. 2014, Bioinformatics 30).
    """
    pairs = np.flatnonzero(2 * table.shared > table.true_pixels[table.true])
    return SegCounts(_billionths(table, pairs), len(table.true_ids), len(table.predicted_ids))


def _billionths(table: Overlap, pairs: Ints) -> int:
    return int(np.rint(BILLION * table.iou[pairs]).astype(np.int64).sum())


@dataclass(frozen=True)
class CellErrors:
    """Ids of wrongly segmented cells, among them every cell that has no match at an IoU of at least one half."""

    split: dict[int, tuple[int, ...]]
    """By true cell: the two or more predicted cells that each have more than half of their own pixels in it."""
    merged: dict[int, tuple[int, ...]]
    """By predicted cell: the two or more true cells that each have more than half of their own pixels in it."""
    missed: tuple[int, ...]
    """True cells without a match that are neither split nor merged."""
    false: tuple[int, ...]
    """Predicted cells without a match that are neither a piece of a split cell nor merge true ones."""


def cell_errors(table: Overlap) -> CellErrors:
    """Sort the cells that are wrongly segmented into split, merged, missed and false ones."""
    true, predicted = table.true_ids[table.true], table.predicted_ids[table.predicted]
    # "More than half" makes both relations functions: a predicted cell is a piece of at most one true cell, and a true
    # cell is covered by at most one predicted cell. A cell may still be split and merged at once: if a predicted cell
    # spills over to a neighbour that it covers as well.
    pieces = 2 * table.shared > table.predicted_pixels[table.predicted]
    covered = 2 * table.shared > table.true_pixels[table.true]
    split, merged = _several(true[pieces], predicted[pieces]), _several(predicted[covered], true[covered])
    pairs = matches(table)
    # A cell with a named error is not counted a second time as missed or false. It may be matched all the same, such as
    # a cell of which a small piece was cut off: the split is reported, and average precision counts the match.
    explained = [*split, *(cell for cells in merged.values() for cell in cells)]
    missed = np.setdiff1d(table.true_ids, [*true[pairs], *explained])
    explained = [*merged, *(cell for cells in split.values() for cell in cells)]
    false = np.setdiff1d(table.predicted_ids, [*predicted[pairs], *explained])
    return CellErrors(split, merged, tuple(missed.tolist()), tuple(false.tolist()))


def _several(keys: Ints, values: Ints) -> dict[int, tuple[int, ...]]:
    """Group `values` by `keys`, both (P,), dropping keys with a single value; keys and values in ascending order."""
    distinct, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    repeated = counts[place] > 1
    order = np.lexsort((values[repeated], keys[repeated]))
    groups = np.split(values[repeated][order], np.cumsum(counts[counts > 1])[:-1])
    # Not strict: if no key is repeated, np.split still gives one empty group.
    return {int(key): tuple(group.tolist()) for key, group in zip(distinct[counts > 1], groups, strict=False)}


@dataclass(frozen=True)
class CellCount:
    """The numbers of true and of found cells, and the sum over images of their absolute difference."""

    true: int
    found: int
    difference: int

    @property
    def error(self) -> float:
        """The difference divided by the number of true cells, or by 1 if there are none."""
        return self.difference / max(self.true, 1)


def count(table: Overlap) -> CellCount:
    """Count the true and the predicted cells of one image."""
    true, found = len(table.true_ids), len(table.predicted_ids)
    return CellCount(true, found, abs(found - true))


class InstanceMetric(PerImageMetric):
    """A metric that compares the predicted cells (H, W) with the map `instances` (H, W), 0 being background in both.

    `ignore_border` = n leaves out the true cells with a pixel among the n outermost rows or columns. A predicted cell
    with an IoU above one half with a true cell is kept or left out with it; any other is left out if it has such a
    pixel. 0 leaves out none.
    """

    higher_is_better = True
    bounds = SHARE

    def __init__(
        self, classes: int, ignore_border: Annotated[int, Field(ge=0, le=1000, description="pixels")] = 0
    ) -> None:
        super().__init__(classes)
        self.ignore_border = ignore_border

    def counts(  # type: ignore[override]  # it asks for maps, by their names
        self, prediction: Tensor, labels: Tensor, *, instances: Tensor, predicted_instances: Tensor
    ) -> Tensor:
        truth = annotated_cells(instances, labels)
        table = overlap(truth.cpu().numpy(), predicted_instances.cpu().numpy(), self.ignore_border)
        # The number of labelled pixels tells an image that has no cells from one that has no labels: in counts of cells
        # both are zeros, but a count error of 0 would be a perfect score for an image that nobody annotated.
        return torch.tensor([*self.count(table), int((truth >= 0).sum())])

    def score(self, counts: Tensor) -> Tensor:
        *numbers, labelled = counts.tolist()
        scores = torch.tensor(self.scores(numbers), dtype=torch.float64)
        return scores if labelled else torch.full_like(scores, torch.nan)

    def count(self, table: Overlap) -> Sequence[int]:
        """The integer counts of one image, without its number of labelled pixels."""
        raise NotImplementedError(f"{type(self).__name__} has to count something")

    def scores(self, numbers: Sequence[int]) -> Sequence[float]:
        """The score of `numbers`, counts of one image or summed over images, then that of each of `parts`."""
        raise NotImplementedError(f"{type(self).__name__} has to score its counts")


@metric("average_precision")
class AveragePrecision(InstanceMetric):
    """TP / (TP + FP + FN) of cells matched one to one, the mean over IoUs of .50, .55, … .95; also at .50, .75, .90.

    As many cells as possible are matched (Caicedo et al. 2019). Cells within `ignore_border` pixels of the border are
    left out; a matched pair is kept or left out as its true cell is. An image without true and predicted cells has no
    score.
    """

    parts = ("AP50", "AP75", "AP90")

    def count(self, table: Overlap) -> Sequence[int]:
        found = average_precision(table)
        return [*found.true_positives, *found.false_positives, *found.false_negatives]

    def scores(self, numbers: Sequence[int]) -> Sequence[float]:
        found = Detections(*np.array(numbers).reshape(3, -1))
        return [found.mean, found.at(50), found.at(75), found.at(90)]


@metric("panoptic_quality")
class PanopticQuality(InstanceMetric):
    """Summed IoU of the cells matched above one half / (matched + half of the false and missed ones); with SQ and RQ.

    SQ is the mean IoU of the matched cells, RQ their F1 score, PQ the product (Kirillov et al. 2019, CVPR). Cells
    within `ignore_border` pixels of the border are left out.
    """

    parts = ("SQ", "RQ")

    def count(self, table: Overlap) -> Sequence[int]:
        found = panoptic_quality(table)
        return [found.iou, found.true_positives, found.false_positives, found.false_negatives]

    def scores(self, numbers: Sequence[int]) -> Sequence[float]:
        found = PanopticCounts(*numbers)
        return [found.panoptic, found.segmentation, found.recognition]


@metric("seg")
class Seg(InstanceMetric):
    """SEG of the Cell Tracking Challenge: mean IoU of true cells with the predicted cell that covers most of each.

    A true cell scores 0 if no predicted cell covers more than half of it; false cells cost nothing (Maška et al. 2014)
    unless an image has no others: it scores 0. Cells within `ignore_border` pixels of the border are left out.
    """

    def count(self, table: Overlap) -> Sequence[int]:
        found = seg(table)
        return [found.iou, found.true, found.predicted]

    def scores(self, numbers: Sequence[int]) -> Sequence[float]:
        return [SegCounts(*numbers).score]


@metric("count")
class Count(InstanceMetric):
    """Counting error |found - true| / max(true, 1), and the numbers of cells: true, found, and by kind of error.

    A split cell has two or more predicted cells mostly inside it, a merged one covers most of two or more true cells;
    missed and false are the others without a match at an IoU of one half. Pooled, errors of opposite sign do not
    cancel.
    """

    higher_is_better = False
    bounds = (0.0, math.inf)
    parts = numbers = ("true", "found", "split", "merged", "missed", "false")
    undirected = ("true", "found")
    axis = "count error, share of true cells"

    def count(self, table: Overlap) -> Sequence[int]:
        found, errors = count(table), cell_errors(table)
        wrong = (len(each) for each in (errors.split, errors.merged, errors.missed, errors.false))
        return [found.difference, found.true, found.found, *wrong]

    def scores(self, numbers: Sequence[int]) -> Sequence[float]:
        difference, true, found, *_ = numbers
        return [CellCount(true, found, difference).error, *numbers[1:]]


__all__ = [
    "PERCENTS",
    "AveragePrecision",
    "CellCount",
    "CellErrors",
    "Count",
    "Detections",
    "PanopticCounts",
    "PanopticQuality",
    "Seg",
    "SegCounts",
    "average_precision",
    "cell_errors",
    "count",
    "overlap",
    "panoptic_quality",
    "seg",
]
