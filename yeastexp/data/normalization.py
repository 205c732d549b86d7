"""Values of images between one normalisation and another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from yeastexp.errors import UserError

PerChannel = float | tuple[float, ...]
"""A number for all channels, or one for each."""


def rescaled(image: Tensor, stored: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None) -> Tensor:
    """An image (C, H, W) stored with one normalisation (or none), as it would be with another (or none)."""
    if stored == wanted:
        return image
    if stored:
        image = image * per_channel(stored["std"], image) + per_channel(stored["mean"], image)
    return (image - per_channel(wanted["mean"], image)) / per_channel(wanted["std"], image) if wanted else image


def per_channel(numbers: PerChannel, image: Tensor) -> float | Tensor:
    """A number as it is, or those of the channels as (C, 1, 1). Raises UserError if there is not one for each."""
    if not isinstance(numbers, tuple | list):
        return numbers
    if len(numbers) != len(image):
        raise UserError(f"{len(numbers)} statistics are given, but the image has {len(image)} channels; give each one")
    return image.new_tensor(numbers).view(-1, 1, 1)


def one_or_each(numbers: Iterable[float]) -> PerChannel:
    """Numbers of channels as `per_channel` takes them: a single one as it is, several as a tuple."""
    listed = tuple(numbers)
    return listed[0] if len(listed) == 1 else listed


OF_A_FILE, GIVEN = ("attribute 'normalization'", "make the file again"), ("normalization", "give 'mean' and 'std'")
"""What a normalisation that is not complete is called, and what to do about it."""


def refuse_incomplete(
    normalization: Mapping[str, Any] | None, channels: int | None = None, said: tuple[str, str] = OF_A_FILE
) -> None:
    """Raises UserError if a normalisation has no mean and standard deviation for all or for each channel."""
    if normalization is None:
        return
    place, remedy = said
    listed: list[list[Any]] = [
        value if isinstance(value, list) else [value] for value in map(normalization.get, ("mean", "std"))
    ]
    numbers = [number for value in listed for number in value]
    complete = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    if not complete or not listed[1] or len(listed[0]) != len(listed[1]):
        raise UserError(f"{place} has no 'mean' and 'std'; {remedy}")
    if (least := min(listed[1])) <= 0:
        raise UserError(f"{place} has the 'std' {least:g}, which should be above 0; {remedy}")
    if len(listed[0]) not in (1, channels):
        raise UserError(f"{place} is of {len(listed[0])} channels, but images have {channels}; {remedy}")


def ends_of(image: Tensor) -> Tensor:
    """The smallest and the largest value (C, 1, 2) of each channel of an image (C, H, W)."""
    return torch.stack([image.amin((1, 2)), image.amax((1, 2))], dim=1)[:, None]


@dataclass(frozen=True)
class Values:
    """The smallest and the largest value of images as they were recorded."""

    low: float
    high: float
    channels: tuple[tuple[float, float], ...] = field(default=(), compare=False)
    """Those of each channel where there are several; none in a checkpoint of an earlier version."""

    @classmethod
    def of(cls, images: Iterable[Tensor], normalization: Mapping[str, Any] | None) -> Values:
        """The extreme values of images (C, H, W), with the normalisation undone that they are stored with, if any."""
        return cls.between([ends_of(image) for image in images], normalization)

    @classmethod
    def between(cls, ends: Sequence[Tensor], normalization: Mapping[str, Any] | None) -> Values:
        """The extreme values of images whose `ends_of` are given; as in `of`."""
        values = rescaled(torch.cat(list(ends), dim=1), normalization, None)
        channels = zip(values.amin((1, 2)).tolist(), values.amax((1, 2)).tolist(), strict=True)
        return cls(float(values.min()), float(values.max()), tuple(channels) if len(values) > 1 else ())
