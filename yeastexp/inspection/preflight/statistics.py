"""The statistics of an image and its labels, which a preflight keeps in place of the pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.data import folds
from yeastexp.data.folds import Thumbnail
from yeastexp.data.running_moments import mean_and_std
from yeastexp.data.transforms import pipeline
from yeastexp.metrics import cells
from yeastexp.sample import IGNORE, Sample
from yeastexp.training.training_images import Transforms

SPECK_PX = 10
"""The area in pixels below which a connected component of the foreground is a speck."""


@dataclass(frozen=True)
class ModelInput:
    """The statistics of an image after the transforms, as the model is given it."""

    mean: float
    std: float
    size: tuple[int, int]
    channels: tuple[tuple[float, float], ...]
    """Mean and standard deviation of each channel."""


@dataclass(frozen=True)
class LabelStatistics:
    """The statistics of the labels of an image."""

    name: str
    split: str
    counts: dict[int, int]
    """Numbers of pixels by label, IGNORE among them."""

    @property
    def pixels(self) -> int:
        """The number of pixels of the image."""
        return sum(self.counts.values())

    @property
    def labelled(self) -> int:
        """The number of pixels whose label is not IGNORE."""
        return self.pixels - self.counts.get(IGNORE, 0)

    @property
    def unlabelled_share(self) -> float:
        """The share of pixels whose label is IGNORE."""
        return self.counts.get(IGNORE, 0) / self.pixels

    @property
    def foreground(self) -> float | None:
        """The share of the labelled pixels whose label is above 0; None if no pixel is labelled."""
        count = sum(count for label, count in self.counts.items() if label > 0)
        return count / self.labelled if self.labelled else None


def count_labels(labels: Tensor) -> dict[int, int]:
    """The numbers of pixels by label."""
    return dict(zip(*(values.tolist() for values in labels.unique(return_counts=True)), strict=True))


@dataclass(frozen=True)
class ImageStatistics(LabelStatistics):
    """The statistics of an image (C, H, W) as stored, and of its labels."""

    dtype: str | None
    shape: tuple[int, int, int]
    low: float
    high: float
    std: float
    at_low: float
    """The share of the pixels at the lowest value of their channel, in the channel with the most."""
    at_high: float
    """The share of the pixels at the highest value of their channel, in the channel with the most."""
    constant: bool
    """Whether all pixels of a channel have one value."""
    components: int
    """The number of connected components of the foreground."""
    specks: int
    """The number of components of less than `SPECK_PX` pixels."""
    contradicted: dict[str, float]
    """By map, the share of its objects' pixels that the labels contradict."""
    diameters: tuple[float, ...]
    """The cells' diameters in pixels after the transforms."""
    instances: cells.CellStatistics | None
    """The statistics of the map `instances`, if there is one."""
    longest_px: int
    """The longest side of a cell's bounding box, after the transforms; 0 without a map `instances`."""
    model_input: ModelInput | None
    thumbnail: Thumbnail
    image_digest: str
    labels_digest: str


Statistics = Sequence[ImageStatistics]
"""The statistics of several images and their labels."""

Labels = Sequence[LabelStatistics]
"""The statistics of the labels of several images."""

AnyStatistics = TypeVar("AnyStatistics", bound=LabelStatistics)


def names(images: Labels) -> tuple[str, ...]:
    """The names of images."""
    return tuple(image.name for image in images)


def in_split(images: Sequence[AnyStatistics], split: str) -> list[AnyStatistics]:
    """The images of a split."""
    return [image for image in images if image.split == split]


def ratio(values: Sequence[float]) -> float:
    """The ratio of the largest to the smallest positive value; 1 without any."""
    positive = [value for value in values if value > 0]
    return max(positive) / min(positive) if positive else 1.0


def measure(sample: Sample, split: str, dtype: str | None, transforms: Transforms | None) -> ImageStatistics:
    """Measure an image, and the model's input if the transforms are given."""
    image, labels = sample.image, sample.labels
    low, high = (float(end) for end in image.aminmax())
    components = _component_sizes(labels)
    transformed = sample if transforms is None else pipeline.whole(transforms, sample)
    stored, given = (some.maps.get("instances") for some in (sample, transformed))
    # Ids are checked as stored. Sizes are compared with patches, so that they are measured again if transforms resize.
    instances = None if stored is None else cells.measure(stored)
    resized = instances if given is None or transformed.size == sample.size else cells.measure(given)
    return ImageStatistics(
        name=sample.name,
        split=split,
        dtype=dtype,
        shape=(int(image.shape[0]), *sample.size),
        low=low,
        high=high,
        std=float(image.double().std(correction=0)),
        at_low=_most_at(image, image.amin((1, 2), keepdim=True)),
        at_high=_most_at(image, image.amax((1, 2), keepdim=True)),
        constant=bool((image.amin(dim=(1, 2)) == image.amax(dim=(1, 2))).any()),
        counts=count_labels(labels),
        components=len(components),
        specks=int((components < SPECK_PX).sum()),
        contradicted=_contradicted(labels, sample.maps),
        diameters=tuple(cells.diameters(transformed.maps.get("instances"), transformed.labels)),
        instances=instances,
        longest_px=resized.longest_px if resized else 0,
        model_input=None if transforms is None else _model_input(transformed),
        thumbnail=folds.thumbnail(image),
        image_digest=_digest(image),
        labels_digest=_digest(labels),
    )


def _component_sizes(labels: Tensor) -> np.ndarray:
    """The pixels of each 8-connected component of the foreground."""
    numbered, count = ndimage.label(labels.numpy() > 0, structure=np.ones((3, 3)))
    return np.bincount(numbered.ravel(), minlength=count + 1)[1:]


def _contradicted(labels: Tensor, maps: Mapping[str, Tensor]) -> dict[str, float]:
    """By map, the share of its objects' pixels that contradict the labels."""
    # Live cells are foreground, dead ones are background; both maps are 0 where there is no object.
    wrong: dict[str, Any] = {"instances": labels == 0, "dead": labels > 0}
    shares = {}
    for name, ids in maps.items():
        objects = ids > 0
        if name in wrong and objects.any():
            shares[name] = float((objects & wrong[name]).sum() / objects.sum())
    return shares


def _model_input(sample: Sample) -> ModelInput:
    deviation, mean = torch.std_mean(sample.image.double(), correction=0)
    return ModelInput(float(mean), float(deviation), sample.size, tuple(mean_and_std([sample.image])))


def _most_at(image: Tensor, values: Tensor) -> float:
    """The share of the pixels that have their channel's value of `values` (C, 1, 1), in the channel with the most."""
    return float((image == values).double().mean(dim=(1, 2)).max())


def _digest(array: Tensor) -> str:
    return hashlib.blake2b(array.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
