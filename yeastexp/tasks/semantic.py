"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from yeastexp.contracts import Interpolation, Loss, Prediction, Task
from yeastexp.metrics.pixels import most_likely
from yeastexp.registry import task
from yeastexp.sample import Sample

Views = Annotated[
    Literal[1, 2, 4, 8], Field(description="flips and rotations of an image whose mean outputs are decoded")
]

CONFIDENCES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Logits of the true class."""


@task("semantic")
class Semantic(Task):
    """A class for each pixel: as many outputs as classes, logits whose softmax is a probability."""

    planes: tuple[Interpolation, ...] = ()

    def __init__(self, channels: int, classes: int, views: Views = 1) -> None:
        self.outputs = self.classes = classes
        self.views = views

    def targets(self, sample: Sample) -> Tensor:
        return sample.labels[None]

    def loss(self, outputs: Tensor, targets: Tensor, criterion: Loss | None) -> Tensor:
        assert criterion is not None, "the file names a loss"
        return criterion(outputs, targets[:, 0].long())

    def count(self, targets: Tensor, criterion: Loss | None) -> Tensor | None:
        return super().count(targets[:, 0], criterion)

    def activate(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=-3)

    def deactivate(self, activated: Tensor) -> Tensor:
        return activated.clamp_min(torch.finfo(activated.dtype).tiny).log()

    def kept(self, activated: Tensor) -> Tensor:
        """Of two probabilities, which sum to 1, the second alone."""
        return activated[1:] if len(activated) == 2 else activated

    def decode(self, outputs: Tensor) -> Prediction:
        return Prediction(most_likely(outputs))

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
