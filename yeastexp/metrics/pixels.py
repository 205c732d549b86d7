"""Metrics from integer counts of each image: the same bits whatever the batch size, order or worker count."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from ignite.metrics import Metric
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from yeastexp.errors import UserError
from yeastexp.registry import metric, source_of
from yeastexp.sample import IGNORE

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """The counts of a metric over N images, and the scores made of them.

    S is the number of scores: K (one a class), 1, or 1 + the number of `parts`. Scores, and intervals of their means,
    lie within `bounds`.
    """

    counts: Tensor
    """The integer counts of each image, (N, number of counts)."""
    rows: Tensor
    """The scores of each image, (N, S) float64; NaN where an image has none."""
    per_image: Tensor
    """The mean over images, (S,)."""
    pooled: Tensor
    """The score of the summed counts, (S,)."""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    parts: tuple[str, ...] = ()


SHARE = (0.0, 1.0)
"""The bounds of a metric whose score is a proportion."""

ALL, MEAN = "all", "mean"
"""Names of rows beside those of classes and parts. `ALL` is the only row of a metric with one score, and the first of
one with parts; `MEAN` is the mean over classes of a metric with one score a class."""


class PerImageMetric(Metric):
    """Base class of metrics: integer counts of each image, and scores made of the counts.

    `counts(prediction, labels, *, <names of the maps it asks for>)` returns an int64 vector from (H, W) class indices;
    `score(counts)` returns a scalar, or (K,) with one score a class. NaN marks a score that an image does not have,
    such as the IoU of a class that is neither in its labels nor in its prediction; means leave it out.

    A metric has to say whether `higher_is_better`, which decides which checkpoint is the best. With `parts`, `score`
    returns (1 + parts,): the metric's own score, then that of each part, such as AP50 beside the average precision.
    """

    higher_is_better: bool
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """The least and the largest possible score, to which intervals and axes are clipped."""
    parts: tuple[str, ...] = ()
    """Names of further scores."""
    numbers: tuple[str, ...] = ()
    """The parts that are numbers of cells."""
    undirected: tuple[str, ...] = ()
    """The parts of which neither more nor less is better."""
    axis: str = ""
    """The axis label of its score in plots, where the metric's name does not do."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        super().__init__()

    @property
    def maps(self) -> tuple[str, ...]:
        """The maps that `counts` asks for by its keyword-only parameters, those of the prediction among them."""
        parameters = inspect.signature(self.counts).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)

    @property
    def data_maps(self) -> frozenset[str]:
        """The maps of the data that `counts` asks for."""
        return frozenset(name for name in self.maps if not name.startswith("predicted_"))

    @property
    def predicted(self) -> frozenset[str]:
        """The maps of the prediction that `counts` asks for by parameters `predicted_<name>`, such as `instances`."""
        return frozenset(name.removeprefix("predicted_") for name in self.maps if name.startswith("predicted_"))

    def on_one_axis(self, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Group the rows `names` so that a plot can show each group on one axis; gives (axis label, rows)."""
        scores = [name for name in names if name not in self.numbers]
        neutral = [name for name in names if name in self.numbers and name in self.undirected]
        errors = [name for name in names if name in self.numbers and name not in self.undirected]
        for group, unit in ((scores, self.axis), (neutral, "number of cells"), (errors, "cells with an error")):
            if group:
                yield unit, group

    def has_maps(self, maps: Collection[str]) -> bool:
        """Whether `maps` of the data include all that `counts` asks for, besides those of the prediction."""
        return self.data_maps <= {*maps}

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """The integer counts of one image, an int64 vector; those of several images are added up."""
        raise NotImplementedError(f"{type(self).__name__} has to count something")

    def score(self, counts: Tensor) -> Tensor:
        """The score of counts, of one image or summed over images."""
        raise NotImplementedError(f"{type(self).__name__} has to score its counts")

    def headline(self, rows: Collection[str], classes: Sequence[str]) -> str:
        """The row that stands for the metric: its single score, the second of two classes, or the mean over classes."""
        return ALL if ALL in rows else classes[1] if len(classes) == 2 else MEAN

    def reset(self) -> None:
        """Forget all images."""
        self._rows: list[Tensor] = []

    def update(self, output: tuple[Tensor, Tensor, Mapping[str, Tensor]]) -> None:
        """Add the counts of one image: prediction (H, W), labels (H, W), maps by name."""
        # An image a call, not a batch: images may differ in size, and no score may depend on the batch size. The rows
        # stay on the device until `compute`, for each copy to the host would wait for the GPU.
        prediction, labels, maps = output
        counts: object = self.counts(prediction, labels, **{name: maps[name] for name in self.maps})
        if not isinstance(counts, Tensor) or counts.is_floating_point() or counts.ndim > 1:
            raise self._fault("counts", counts, "a vector of whole numbers")
        if self._rows and counts.shape != self._rows[0].shape:
            raise self._fault("counts", counts, f"as many numbers for each image, {self._rows[0].numel()} as before")
        self._rows.append(counts)

    def compute(self) -> Scores:
        """The scores of all images so far; means are taken in float64."""
        return self.scored(torch.stack(self._rows).cpu())

    def scored(self, counts: Tensor) -> Scores:
        """The scores of counts (N, number of counts), one row an image."""
        rows = torch.stack([self._scores(row) for row in counts])
        per_image = rows.sort(dim=0).values.nanmean(dim=0)  # sorted: rounding must not depend on the order of images
        return Scores(counts, rows, per_image, self._scores(counts.sum(dim=0)), self.bounds, self.parts)

    def _scores(self, counts: Tensor) -> Tensor:
        scores: object = self.score(counts)
        if not isinstance(scores, Tensor) or scores.numel() not in (1, self.classes, 1 + len(self.parts)):
            raise self._fault("score", scores, f"a tensor of one score, or of {self.classes} (one a class)")
        return scores.double().reshape(-1)

    def _fault(self, hook: str, value: object, wanted: str) -> UserError:
        gives = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        name = type(self).__name__
        return UserError(f"{source_of(type(self))}: '{hook}' of {name} gives {gives}; return {wanted}")


def confusion(prediction: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The confusion matrix (K, K) int64: pixels by labelled class (rows) and predicted class; IGNORE is left out."""
    pairs = classes * (classes + 1)
    dtype = torch.uint8 if pairs <= 256 else torch.int64  # an eighth of the memory to go through
    row = labels.to(dtype) - IGNORE  # IGNORE gets a row of its own, the first: in uint8 it is 255, and wraps to 0
    pair = row.mul_(classes).add_(prediction.to(dtype))
    return torch.bincount(pair.flatten(), minlength=pairs).view(classes + 1, classes)[1:]


def most_likely(logits: Tensor) -> Tensor:
    """The class of each pixel, (H, W) int64, from logits (K, H, W); of equal logits the first."""
    # On a CPU `argmax` along the first axis takes ten times as long as `max`, and a hundred times as long as comparing
    # two classes.
    if len(logits) == 2:
        return (logits[1] > logits[0]).long()
    return logits.max(dim=0).indices


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part.double() / whole, torch.nan)


@metric("accuracy")
class Accuracy(PerImageMetric):
    """Share of the labelled pixels whose class is right: Σ_k n_kk / Σ_kl n_kl."""

    higher_is_better = True
    bounds = SHARE

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        labelled = labels != IGNORE
        return torch.stack([((prediction == labels) & labelled).sum(), labelled.sum()])

    def score(self, counts: Tensor) -> Tensor:
        return _ratio(counts[0], counts[1])


class ByClass(PerImageMetric):
    """Base class of metrics whose score of a class is a ratio of its hits, labelled and predicted pixels."""

    higher_is_better = True
    bounds = SHARE

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """Hits, labelled and predicted pixels of each class, (3 K,)."""
        table = confusion(prediction, labels, self.classes)
        return torch.stack([table.diagonal(), table.sum(dim=1), table.sum(dim=0)]).flatten()

    def score(self, counts: Tensor) -> Tensor:
        """The ratio of each class, (K,)."""
        return _ratio(*self.ratio(*counts.reshape(3, self.classes)))

    def ratio(self, hits: Tensor, true: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of each class, (K,) each; a class whose denominator is 0 has no score."""
        raise NotImplementedError(f"{type(self).__name__} has to say what it divides")


@metric("iou")
class IoU(ByClass):
    """Intersection over union of each class, the Jaccard index: n_kk / (Σ_l n_kl + Σ_l n_lk - n_kk)."""

    def ratio(self, hits: Tensor, true: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        return hits, true + predicted - hits


@metric("dice")
class Dice(ByClass):
    """Dice coefficient of each class, the F1 score of its pixels: 2 n_kk / (Σ_l n_kl + Σ_l n_lk)."""

    def ratio(self, hits: Tensor, true: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * hits, true + predicted


@metric("precision")
class Precision(ByClass):
    """Share of the pixels predicted as a class that are of it: n_kk / Σ_l n_lk."""

    def ratio(self, hits: Tensor, true: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        return hits, predicted


@metric("recall")
class Recall(ByClass):
    """Share of the pixels of a class that are predicted as it: n_kk / Σ_l n_kl."""

    def ratio(self, hits: Tensor, true: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        return hits, true


@metric("boundary_f1")
class BoundaryF1(PerImageMetric):
    """F1 score of each class's boundary pixels, which are hits within `tolerance_px` of the other map's boundary.

    2 P R / (P + R), with P the share of predicted boundary pixels near a true one and R the share of true ones near a
    predicted one (Csurka et al. 2013, BMVC). A boundary pixel has one of its four neighbours outside its class; the
    border of the image makes none, and unlabelled pixels neither make nor have any.
    """

    higher_is_better = True
    bounds = SHARE

    def __init__(self, classes: int, tolerance_px: Annotated[float, Field(ge=0, le=100)] = 2.0) -> None:
        super().__init__(classes)
        self.tolerance_px = tolerance_px

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        ignored = (labels == IGNORE).cpu().numpy()
        maps = prediction.cpu().numpy(), labels.cpu().numpy()
        rows = [
            self._matches(*(_boundary(class_map == label, ignored) for class_map in maps))
            for label in range(self.classes)
        ]
        return torch.tensor(rows, dtype=torch.int64).T.flatten()

    def _matches(self, predicted: Mask, true: Mask) -> tuple[int, int, int, int]:
        # Precision and recall have counts of their own: within a tolerance, boundary pixels do not pair off one to one.
        precise = predicted & (_distance_to(true) <= self.tolerance_px)
        recalled = true & (_distance_to(predicted) <= self.tolerance_px)
        return int(precise.sum()), int(predicted.sum()), int(recalled.sum()), int(true.sum())

    def score(self, counts: Tensor) -> Tensor:
        precise, predicted, recalled, true = counts.reshape(4, self.classes).double()
        precision, recall = precise / predicted.clamp_min(1), recalled / true.clamp_min(1)
        # Where one of both boundaries is empty, or none of them is near the other, F1 is 0 and not 0 / 0.
        score = 2 * precision * recall / (precision + recall).clamp_min(1e-300)
        return torch.where(predicted + true > 0, score, torch.nan)


@metric("dead_cell_false_positives")
class DeadCellFalsePositives(PerImageMetric):
    """Share of the dead cells (objects of the map `dead`) most of whose pixels are predicted as foreground."""

    higher_is_better = False
    bounds = SHARE

    def counts(  # type: ignore[override]  # it asks for a map, by its name
        self, prediction: Tensor, labels: Tensor, *, dead: Tensor
    ) -> Tensor:
        # Only objects with a labelled pixel are counted. Ids are numbered anew, as they may be as large as their type.
        counted = (labels != IGNORE) & (dead > 0)
        ids, index, pixels = torch.unique(dead[counted], return_inverse=True, return_counts=True)
        foreground = torch.bincount(index[prediction[counted] > 0], minlength=len(ids))
        return torch.stack([(2 * foreground > pixels).sum(), torch.tensor(len(ids), device=pixels.device)])

    def score(self, counts: Tensor) -> Tensor:
        return _ratio(counts[0], counts[1])


def _boundary(mask: Mask, ignored: Mask) -> Mask:
    """The pixels (H, W) of a mask with a 4-neighbour outside of it."""
    # Unlabelled pixels and those beyond the image count as inside: what is there is unknown, so it makes no boundary.
    inside = ndimage.binary_erosion(mask | ignored, border_value=1)
    return np.asarray(mask & ~inside & ~ignored)


def _distance_to(mask: Mask) -> npt.NDArray[np.float64]:
    """The distance of each pixel to the nearest one of the mask, (H, W) in pixels."""
    # SciPy's transform measures to the nearest zero, and without any it gives meaningless finite distances.
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask))


__all__ = [
    "Accuracy",
    "BoundaryF1",
    "DeadCellFalsePositives",
    "Dice",
    "IoU",
    "PerImageMetric",
    "Precision",
    "Recall",
    "Scores",
    "confusion",
    "metric",
    "most_likely",
]
