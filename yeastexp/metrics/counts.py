"""Counts of pixels, connected regions and instances in each image, beside the scores."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.metrics.pixels import Mask, PerImageMetric, confusion
from yeastexp.sample import IGNORE


class PixelCounts(PerImageMetric):
    """The flattened confusion matrix, (K K,); its score is the accuracy."""

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        return confusion(prediction, labels, self.classes).flatten()

    def score(self, counts: Tensor) -> Tensor:
        return counts.reshape(self.classes, self.classes).diagonal().sum().double() / counts.sum()


class RegionCounts(PerImageMetric):
    """The numbers of 8-connected regions of each class: labelled, then predicted, (2 K,).

    The score is predicted / labelled regions. Unlabelled pixels belong to no region.
    """

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        ignored = labels == IGNORE
        maps = [class_map.masked_fill(ignored, IGNORE).cpu().numpy() for class_map in (labels, prediction)]
        return torch.tensor([[_regions(each == label) for label in range(self.classes)] for each in maps]).flatten()

    def score(self, counts: Tensor) -> Tensor:
        true, predicted = counts.reshape(2, self.classes).double()
        return torch.where(true > 0, predicted / true, torch.nan)


def _regions(mask: Mask) -> int:
    return int(ndimage.label(mask, structure=np.ones((3, 3)))[1])


class InstanceCounts(PerImageMetric):
    """The number of different ids of the map `instances` among the pixels of each class, (K,)."""

    def counts(  # type: ignore[override]  # it asks for a map, by its name
        self, prediction: Tensor, labels: Tensor, *, instances: Tensor
    ) -> Tensor:
        ids = [instances[(labels == label) & (instances > 0)].unique() for label in range(self.classes)]
        return torch.tensor([len(of_class) for of_class in ids])

    def score(self, counts: Tensor) -> Tensor:
        return counts.double()


class PredictedInstanceCounts(PerImageMetric):
    """The number of different predicted ids among the labelled pixels predicted as each class, (K,)."""

    def counts(  # type: ignore[override]  # it asks for a map, by its name
        self, prediction: Tensor, labels: Tensor, *, predicted_instances: Tensor
    ) -> Tensor:
        known = (labels != IGNORE) & (predicted_instances > 0)
        ids = [predicted_instances[known & (prediction == label)].unique() for label in range(self.classes)]
        return torch.tensor([len(of_class) for of_class in ids])

    def score(self, counts: Tensor) -> Tensor:
        return counts.double()
