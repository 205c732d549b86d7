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
from yeastexp.training.step import checked_logits

POSITIONS = 4
"""Outputs of each image whose gradients are taken."""

FARTHEST = 256
"""Pixels to each side that are looked at where every output sees the whole image."""


@dataclass(frozen=True)
class Spread:
    """How the mean absolute gradient of an output is spread about its own pixel."""

    density: npt.NDArray[np.float64]
    """Shares of the gradient (2R + 1, 2R + 1), the output's own pixel in the middle."""
    positions: int

    @cached_property
    def within(self) -> npt.NDArray[np.float64]:
        """The share that lies in the square of side 2r + 1 about the output's own pixel, for each r."""
        away = np.abs(np.arange(len(self.density)) - len(self.density) // 2)
        return np.bincount(np.maximum.outer(away, away).ravel(), self.density.ravel()).cumsum()

    def side(self, share: float) -> int:
        """Pixels of the side of the smallest such square that holds at least so large a share."""
        return 2 * int(np.searchsorted(self.within, share * self.within[-1] * (1 - 1e-12))) + 1


def measure(model: nn.Module, images: Iterable[Tensor], field: ReceptiveField) -> Spread:
    """The spread of ∂ logit / ∂ pixel, averaged over classes, channels, and outputs in the middle of images (C, H, W).

    `field` is the theoretical one, beyond which there is no gradient. After Luo, Li, Urtasun and Zemel (2016),
    Understanding the effective receptive field in deep convolutional neural networks: their gradient at the centre,
    here the absolute value of each before the average, so that classes and images do not cancel.
    """
    reach = max(max(axis.before, axis.after) if axis.phases else FARTHEST for axis in field.axes)
    total, seen = np.zeros((2, 2 * reach + 1, 2 * reach + 1))
    positions = 0
    for index, image in enumerate(images):
        for place in _places(index, (image.shape[1], image.shape[2]), reach, field.jump):
            rows, columns = (_around(at, reach, field.jump) for at in place)
            piece = image[:, rows, columns]
            own = place[0] - rows.start, place[1] - columns.start
            gradient = _gradient(model, piece, own).cpu().double().numpy()
            _add(total, seen, gradient, own)
            positions += 1
    mean = total / np.maximum(seen, 1)
    if not mean.sum() > 0:
        raise UserError("the model's output does not change with the image; there is no effective receptive field")
    return Spread(mean / mean.sum(), positions)


def _places(index: int, size: tuple[int, int], reach: int, jump: int) -> list[tuple[int, int]]:
    """Outputs of all phases that lie, if they can, so far inside that they see no border."""
    source = generator(0, "effective receptive field", index=index)
    made = []
    for _ in range(POSITIONS):
        place = []
        for length in size:
            room = min(length, max(length - 2 * reach, jump))
            place.append(int((length - room) // 2 + source.integers(room)))
        made.append((place[0], place[1]))
    return made


def _around(place: int, reach: int, jump: int) -> slice:
    """What an output sees, widened to multiples of the jump: a piece of it gives what the whole image gives."""
    first = max(0, (place - reach) // jump * jump)
    return slice(first, -(-(place + reach + 1) // jump) * jump)


def _gradient(model: nn.Module, piece: Tensor, own: tuple[int, int]) -> Tensor:
    """The absolute gradient (h, w) of the logits at a place on a piece of an image (C, h, w), their classes' mean."""
    images = piece[None].detach().requires_grad_()
    logits = model(images)
    checked_logits(logits, images, logits.shape[1])
    total = torch.zeros_like(piece[0])
    for one in logits[0, :, own[0], own[1]]:
        (gradient,) = torch.autograd.grad(one, images, retain_graph=True)
        total += gradient[0].abs().sum(dim=0) / logits.shape[1]
    return total


def _add(
    total: npt.NDArray[np.float64],
    seen: npt.NDArray[np.float64],
    gradient: npt.NDArray[np.float64],
    own: tuple[int, int],
) -> None:
    """Lay a gradient on the others so that its own pixel meets theirs, and count what was there to be seen."""
    reach = len(total) // 2
    first = [max(0, at - reach) for at in own]
    kept = gradient[first[0] : own[0] + reach + 1, first[1] : own[1] + reach + 1]
    top, left = (reach - at + start for at, start in zip(own, first, strict=True))
    here = (slice(top, top + kept.shape[0]), slice(left, left + kept.shape[1]))
    total[here] += kept
    seen[here] += 1
