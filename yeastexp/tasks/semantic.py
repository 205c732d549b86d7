"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from yeastexp.contracts import Loss, Prediction, Task
from yeastexp.metrics.pixels import most_likely
from yeastexp.registry import task
from yeastexp.sample import Sample

CONFIDENCES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Logits of the true class."""


@task("semantic")
class Semantic(Task):
    """A class for each pixel: as many outputs as classes, logits whose softmax is a probability."""

    planes = ()

    def __init__(self, channels: int, classes: int) -> None:
        self.outputs = classes

    def targets(self, sample: Sample) -> Tensor:
        return sample.labels[None]

    def loss(self, outputs: Tensor, targets: Tensor, criterion: Loss | None) -> Tensor:
        assert criterion is not None, "the file names a loss"
        return criterion(outputs, targets[:, 0])

    def count(self, targets: Tensor, criterion: Loss | None) -> Tensor | None:
        return super().count(targets[:, 0], criterion)

    def activate(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=-3)

    def deactivate(self, activated: Tensor) -> Tensor:
        return activated.clamp_min(torch.finfo(activated.dtype).tiny).log()

    def decode(self, outputs: Tensor) -> Prediction:
        return Prediction(most_likely(outputs))

    def certain(self, targets: Tensor) -> Iterator[Tensor]:
        hot = functional.one_hot(targets[:, 0].clamp_min(0), self.outputs).movedim(-1, 1).float()
        return (confidence * hot for confidence in CONFIDENCES)

    def constant(self, targets: Tensor) -> Iterator[Tensor]:
        labels = targets[:, 0]
        counts = torch.stack([(labels == label).sum() for label in range(self.outputs)]).float()
        one_class = 8.0 * torch.eye(self.outputs, device=labels.device)
        shape = (labels.shape[0], self.outputs, *labels.shape[1:])
        predictions = [(counts / counts.sum()).clamp_min(1e-6).log(), *one_class]
        return (logits[None, :, None, None].expand(shape).contiguous() for logits in predictions)
