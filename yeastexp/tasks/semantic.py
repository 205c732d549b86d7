"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from yeastexp.contracts import Interpolation, Loss, Prediction, Task
from yeastexp.metrics.pixels import most_likely
from yeastexp.registry import task
from yeastexp.sample import Sample
from yeastexp.tasks.mask_cells import MaskCells
from yeastexp.tasks.telling_apart import Planes

Views = Annotated[
    Literal[1, 2, 4, 8], Field(description="flips and rotations of an image whose mean outputs are decoded")
]

CONFIDENCES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""The logits of the true class in outputs that are certain."""


@task("semantic")
class Semantic(Task):
    """A class for each pixel: as many outputs as classes, logits whose softmax is a probability.

    Cells are approximate (watershed of the mask): regions of all classes but the first, cut by
    `yeastexp.tasks.mask_cells.MaskCells`. Its options are those that give most true cells of the training images back
    from their own mask, where these have a map `instances`, and its defaults where they have none.
    """

    planes: tuple[Interpolation, ...] = ()
    approximates = True

    def __init__(self, channels: int, classes: int, views: Views = 1) -> None:
        self.outputs = self.classes = classes
        self.views = views
        self.mask_cells = MaskCells()

    def fit(self, samples: Iterable[Sample]) -> None:
        """Choose how masks are cut into cells by the first training images with ids of cells, if there are any."""
        self.mask_cells = MaskCells.fitted_on(samples)

    def state_dict(self) -> dict[str, Any]:
        return {"mask_cells": asdict(self.mask_cells)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:  # older checkpoints have none
            self.mask_cells = MaskCells(**state["mask_cells"])

    def targets(self, sample: Sample) -> Tensor:
        return sample.labels[None]

    def loss(self, outputs: Tensor, targets: Tensor, criterion: Loss | None) -> Tensor:
        assert criterion is not None, "the file names a loss"
        return criterion(outputs, targets[:, 0].long())

    def count(self, targets: Tensor, criterion: Loss | None) -> Tensor | None:
        return super().count(targets[:, 0].long(), criterion)

    def activate(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=-3)

    def deactivate(self, activated: Tensor) -> Tensor:
        return activated.clamp_min(torch.finfo(activated.dtype).tiny).log()

    def kept(self, activated: Tensor) -> Tensor:
        """Return the probabilities (P, H, W); of two classes, which sum to 1, the second alone."""
        return activated[1:] if len(activated) == 2 else activated

    def decode(self, outputs: Tensor) -> Prediction:
        return Semantic.of_classes(self, most_likely(outputs))

    def of_classes(self, labels: Tensor) -> Prediction:
        return Prediction(labels, approximate=partial(self.mask_cells.of_labels, labels))

    def confidence(self, planes: Planes) -> Planes:
        """Return the probability of all classes but the first (h, W) from the kept planes (P, h, W)."""
        return np.asarray(planes[1 if len(planes) > 1 else 0 :].sum(axis=0, dtype=np.float32))

    def certain(self, targets: Tensor) -> Iterator[Tensor]:
        hot = functional.one_hot(targets[:, 0].long().clamp_min(0), self.classes).movedim(-1, 1).float()
        return (confidence * hot for confidence in CONFIDENCES)

    def constant(self, targets: Tensor) -> Iterator[Tensor]:
        labels = targets[:, 0].long()
        counts = torch.stack([(labels == label).sum() for label in range(self.classes)]).float()
        one_class = 8.0 * torch.eye(self.classes, device=labels.device)
        shape = (labels.shape[0], self.classes, *labels.shape[1:])
        predictions = [(counts / counts.sum()).clamp_min(1e-6).log(), *one_class]
        return (logits[None, :, None, None].expand(shape).contiguous() for logits in predictions)
