"""The effective receptive field: the distribution of an output's gradient over the image, of a trained model."""

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
"""The number of outputs of each image whose gradients are taken."""

MAX_RADIUS = 256
"""The distance in pixels up to which a gradient is kept if the theoretical field is the whole image."""


@dataclass(frozen=True)
class GradientDensity:
    """The mean absolute gradient of an output, by distance from the output's own pixel."""

    density: npt.NDArray[np.float64]
    """Shares of the gradient (2R + 1, 2R + 1), the output's own pixel in the middle."""
    positions: int

    @cached_property
    def within(self) -> npt.NDArray[np.float64]:
        """The share of the gradient in the square of side 2r + 1 about the output's own pixel, by r, (R + 1,)."""
        distances = np.abs(np.arange(len(self.density)) - len(self.density) // 2)
        return np.bincount(np.maximum.outer(distances, distances).ravel(), self.density.ravel()).cumsum()

    def side(self, share: float) -> int:
        """The side in pixels of the smallest such square that holds at least `share` of the gradient."""
        # Less a rounding error: otherwise all of the gradient might never be reached, and the index run past the end.
        return 2 * int(np.searchsorted(self.within, share * self.within[-1] * (1 - 1e-12))) + 1


def measure(model: nn.Module, images: Iterable[Tensor], field: ReceptiveField) -> GradientDensity:
    """Measure |∂ logit / ∂ pixel|, averaged over classes, channels, and outputs in the middle of images (C, H, W).

    `field` is the theoretical receptive field, beyond which there is no gradient. After Luo, Li, Urtasun and Zemel
    (2016), Understanding the effective receptive field in deep convolutional neural networks; here absolute values are
    averaged, so that gradients of classes and images do not cancel. Raises UserError if the output does not depend on
    the image.
    """
    radius = max(max(axis.before, axis.after) if axis.phases else MAX_RADIUS for axis in field.axes)
    stride = field.cumulative_stride
    total, counts = np.zeros((2, 2 * radius + 1, 2 * radius + 1))
    positions = 0
    for index, image in enumerate(images):
        for place in _places(index, (image.shape[1], image.shape[2]), radius, stride):
            # Only the piece that the output depends on goes through the model, not the whole image.
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
    """Random positions of outputs in the middle of an image: if it is large enough, their fields touch no border.

    The range is at least a cumulative stride wide, so that outputs of all phases are drawn.
    """
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
    """The range of pixels of an output's field along one axis, widened to multiples of the cumulative stride."""
    # So the downsampling layers of the model meet the same grid in the piece as in the whole image, and the output of
    # the piece equals that of the image.
    first = max(0, (place - radius) // stride * stride)
    return slice(first, -(-(place + radius + 1) // stride) * stride)


def _gradient(model: nn.Module, piece: Tensor, center: tuple[int, int]) -> Tensor:
    """The absolute gradient (h, w) of the logits at a position of a piece (C, h, w): summed over C, the mean over K."""
    # A backward pass for each class, as the gradients of classes would cancel in that of their sum.
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
    """Add a gradient to the total, centers aligned, and count the pixels that lay within its image."""
    # Near a border a gradient lacks one side. Counting makes the mean there one of fewer outputs, not a smaller one.
    radius = len(total) // 2
    first = [max(0, at - radius) for at in center]
    kept = gradient[first[0] : center[0] + radius + 1, first[1] : center[1] + radius + 1]
    top, left = (radius - at + start for at, start in zip(center, first, strict=True))
    target = (slice(top, top + kept.shape[0]), slice(left, left + kept.shape[1]))
    total[target] += kept
    counts[target] += 1
