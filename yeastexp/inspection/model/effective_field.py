"""The effective receptive field: where on the image the gradient of an output lies, measured on a trained model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from yeastexp.errors import UserError
from yeastexp.nets.receptive_field import ReceptiveField
from yeastexp.randomness import generator
from yeastexp.training.outputs import checked_outputs

POSITIONS = 4
"""Outputs of each image whose gradients are taken."""

MAX_RADIUS = 256
"""Pixels to each side that are kept of a gradient if the theoretical field is the whole image."""


@dataclass(frozen=True)
class GradientDensity:
    """The mean absolute gradient of an output, by distance from the output's own pixel."""

    density: npt.NDArray[np.float64]
    """Shares of the gradient (2R + 1, 2R + 1), the output's own pixel in the middle."""
    positions: int

    @cached_property
    def within(self) -> npt.NDArray[np.float64]:
        """The share that lies in the square of side 2r + 1 about the output's own pixel, for each r."""
        distances = np.abs(np.arange(len(self.density)) - len(self.density) // 2)
        return np.bincount(np.maximum.outer(distances, distances).ravel(), self.density.ravel()).cumsum()

    def side(self, share: float) -> int:
        """Pixels of the side of the smallest such square that holds at least so large a share."""
        return 2 * int(np.searchsorted(self.within, share * self.within[-1] * (1 - 1e-12))) + 1


def measure(model: nn.Module, images: Iterable[Tensor], field: ReceptiveField) -> GradientDensity:
    """|∂ logit / ∂ pixel|, averaged over classes, channels, and outputs in the middle of images (C, H, W).

    `field` is the theoretical one, beyond which there is no gradient. After Luo, Li, Urtasun and Zemel (2016),
    Understanding the effective receptive field in deep convolutional neural networks: their gradient at the centre,
    here the absolute value of each before the average, so that classes and images do not cancel.
    """
    radius = max(max(axis.before, axis.after) if axis.phases else MAX_RADIUS for axis in field.axes)
    stride = field.cumulative_stride
    total, counts = np.zeros((2, 2 * radius + 1, 2 * radius + 1))
    positions = 0
    for index, image in enumerate(images):
        for place in _places(index, (image.shape[1], image.shape[2]), radius, stride):
            rows, columns = (_around(at, radius, stride) for at in place)
            piece = image[:, rows, columns]
            center = place[0] - rows.start, place[1] - columns.start
            gradient = _gradient(model, piece, center).cpu().double().numpy()
            _add(total, counts, gradient, center)
            positions += 1
    mean = total / np.maximum(counts, 1)
    if not mean.sum() > 0:
        raise UserError("the model's output does not change with the image; there is no effective receptive field")
    return GradientDensity(mean / mean.sum(), positions)


def _places(index: int, size: tuple[int, int], radius: int, stride: int) -> list[tuple[int, int]]:
    """Outputs of all phases, and so far inside, if they can be, that their fields touch no border."""
    source = generator(0, "effective receptive field", index=index)
    places = []
    for _ in range(POSITIONS):
        place = []
        for length in size:
            room = min(length, max(length - 2 * radius, stride))
            place.append(int((length - room) // 2 + source.integers(room)))
        places.append((place[0], place[1]))
    return places


def _around(place: int, radius: int, stride: int) -> slice:
    """An output's field, widened to multiples of the cumulative stride: a piece then gives what the image gives."""
    first = max(0, (place - radius) // stride * stride)
    return slice(first, -(-(place + radius + 1) // stride) * stride)


def _gradient(model: nn.Module, piece: Tensor, center: tuple[int, int]) -> Tensor:
    """The absolute gradient (h, w) of the logits at a place on a piece of an image (C, h, w), their classes' mean."""
    images = piece[None].detach().requires_grad_()
    logits = model(images)
    checked_outputs(logits, images, logits.shape[1])
    total = torch.zeros_like(piece[0])
    for logit in logits[0, :, center[0], center[1]]:
        (gradient,) = torch.autograd.grad(logit, images, retain_graph=True)
        total += gradient[0].abs().sum(dim=0) / logits.shape[1]
    return total


def _add(
    total: npt.NDArray[np.float64],
    counts: npt.NDArray[np.float64],
    gradient: npt.NDArray[np.float64],
    center: tuple[int, int],
) -> None:
    """Add a gradient to the others, centers aligned, and count the pixels that lay within its image."""
    radius = len(total) // 2
    first = [max(0, at - radius) for at in center]
    kept = gradient[first[0] : center[0] + radius + 1, first[1] : center[1] + radius + 1]
    top, left = (radius - at + start for at, start in zip(center, first, strict=True))
    target = (slice(top, top + kept.shape[0]), slice(left, left + kept.shape[1]))
    total[target] += kept
    counts[target] += 1
