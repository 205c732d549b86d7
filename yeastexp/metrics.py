"""Metrics from integer counts of each image: the same bits whatever the batch size, order or worker count."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from ignite.metrics import Metric
from torch import Tensor

from yeastexp.registry import metric
from yeastexp.sample import IGNORE


@dataclass(frozen=True)
class Scores:
    """What a metric found: one row of counts an image, and the scores made of them (N images, K classes or 1)."""

    counts: Tensor
    rows: Tensor
    per_image: Tensor
    pooled: Tensor


class PerImageMetric(Metric):
    """A metric that counts whole numbers in each image and scores the counts.

    `counts(prediction, labels, *, <names of the maps it asks for>)` gives an int64 vector from (H, W) class indices;
    `score(counts)` gives a scalar, or (K,) with one score a class. NaN marks a score that an image does not have, such
    as the IoU of a class that is neither in its truth nor in its prediction; means leave it out.
    """

    higher_is_better = True

    def __init__(self, classes: int) -> None:
        self.classes = classes
        super().__init__()

    @property
    def maps(self) -> tuple[str, ...]:
        """The further label maps that `counts` asks for."""
        parameters = inspect.signature(self.counts).parameters.values()
        return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """The whole numbers that one image adds."""
        raise NotImplementedError(f"{type(self).__name__} has to count something")

    def score(self, counts: Tensor) -> Tensor:
        """The score of counts, of one image or summed over images."""
        raise NotImplementedError(f"{type(self).__name__} has to score its counts")

    def reset(self) -> None:
        """Forget all images."""
        self._rows: list[Tensor] = []

    def update(self, output: tuple[Tensor, Tensor, Mapping[str, Tensor]]) -> None:
        """Count one image: prediction (H, W), labels (H, W), maps by name."""
        prediction, labels, maps = output
        self._rows.append(self.counts(prediction, labels, **{name: maps[name] for name in self.maps}))

    def compute(self) -> Scores:
        """The scores over all images seen; the means are taken in float64."""
        counts = torch.stack(self._rows).cpu()
        rows = torch.stack([self.score(row).double().reshape(-1) for row in counts])
        return Scores(counts, rows, rows.nanmean(dim=0), self.score(counts.sum(dim=0)).double().reshape(-1))


def confusion(prediction: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Pixels by true class (rows) and predicted class (columns), (K, K) int64; IGNORE is left out."""
    known = labels != IGNORE
    pairs = labels[known] * classes + prediction[known]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part.double() / whole, torch.nan)


@metric("accuracy")
class Accuracy(PerImageMetric):
    """Share of the pixels with truth whose class is right: Σ_k n_kk / Σ_kl n_kl."""

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        known = labels != IGNORE
        return torch.stack([((prediction == labels) & known).sum(), known.sum()])

    def score(self, counts: Tensor) -> Tensor:
        return _ratio(counts[0], counts[1])


@metric("iou")
class IoU(PerImageMetric):
    """Intersection over union of each class, the Jaccard index: n_kk / (Σ_l n_kl + Σ_l n_lk - n_kk)."""

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        table = confusion(prediction, labels, self.classes)
        both = table.diagonal()
        return torch.stack([both, table.sum(dim=0) + table.sum(dim=1) - both]).flatten()

    def score(self, counts: Tensor) -> Tensor:
        both, either = counts.reshape(2, self.classes)
        return _ratio(both, either)


__all__ = ["Accuracy", "IoU", "PerImageMetric", "Scores", "confusion", "metric"]
