"""The figures of one image and its truth: all that a preflight keeps of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.data import folds
from yeastexp.data.folds import Thumbnail
from yeastexp.data.transforms import pipeline
from yeastexp.inspection import cells
from yeastexp.sample import IGNORE, Sample
from yeastexp.training.build import Transforms

LEAST_PIECE_PX = 10
"""Pixels of a connected piece of foreground that is no speck."""


@dataclass(frozen=True)
class Seen:
    """What the model sees of an image, behind the transforms."""

    mean: float
    std: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Figures:
    """An image (C, H, W) as stored, and its truth."""

    name: str
    split: str
    dtype: str | None
    shape: tuple[int, int, int]
    low: float
    high: float
    std: float
    at_low: float
    """Share of the pixels that have the lowest value."""
    at_high: float
    constant: bool
    """Whether a channel holds one value."""
    counts: dict[int, int]
    """Pixels of each label, IGNORE among them."""
    pieces: int
    specks: int
    """Connected pieces of foreground, and how many of them are smaller than a few pixels."""
    astray: dict[str, float]
    """By map, the share of its objects' pixels that the labels contradict."""
    diameters: tuple[float, ...]
    """Of the cells, in pixels that the model sees."""
    seen: Seen | None
    thumbnail: Thumbnail
    image_digest: str
    labels_digest: str

    @property
    def pixels(self) -> int:
        """Pixels of the image."""
        return self.shape[1] * self.shape[2]

    @property
    def known(self) -> int:
        """Pixels with truth."""
        return self.pixels - self.counts.get(IGNORE, 0)

    @property
    def ignored(self) -> float:
        """The share of pixels without truth."""
        return self.counts.get(IGNORE, 0) / self.pixels

    @property
    def foreground(self) -> float | None:
        """The share of the pixels with truth whose label is above 0; nothing where none has truth."""
        found = sum(count for label, count in self.counts.items() if label > 0)
        return found / self.known if self.known else None


def measure(sample: Sample, split: str, dtype: str | None, transforms: Transforms | None) -> Figures:
    """The figures of an image; of what the model sees as well where the transforms are known."""
    image, labels = sample.image, sample.labels
    low, high = (float(one) for one in image.aminmax())
    lowest, highest = image.amin(dim=(1, 2)), image.amax(dim=(1, 2))
    pieces = _pieces(labels)
    seen = pipeline.whole(transforms, sample) if transforms is not None else None
    shown = seen or sample
    return Figures(
        name=sample.name,
        split=split,
        dtype=dtype,
        shape=(int(image.shape[0]), *sample.size),
        low=low,
        high=high,
        std=float(image.double().std(correction=0)),
        at_low=float((image == low).double().mean()),
        at_high=float((image == high).double().mean()),
        constant=bool((lowest == highest).any()),
        counts=_counts(labels),
        pieces=len(pieces),
        specks=int((pieces < LEAST_PIECE_PX).sum()),
        astray=_astray(labels, sample.maps),
        diameters=tuple(cells.diameters(shown.maps.get("instances"), shown.labels)),
        seen=_seen(seen) if seen else None,
        thumbnail=folds.thumbnail(image),
        image_digest=_digest(image),
        labels_digest=_digest(labels),
    )


def _counts(labels: Tensor) -> dict[int, int]:
    found, counts = labels.unique(return_counts=True)
    return {int(label): int(count) for label, count in zip(found, counts, strict=True)}


def _pieces(labels: Tensor) -> np.ndarray:
    """The sizes in pixels of the connected pieces of foreground."""
    numbered, count = ndimage.label(labels.numpy() > 0, structure=np.ones((3, 3)))
    return np.bincount(numbered.ravel(), minlength=count + 1)[1:]


def _astray(labels: Tensor, maps: Mapping[str, Tensor]) -> dict[str, float]:
    """Live cells have a label above 0, dead ones are background; both maps are 0 where there is none."""
    wrong: dict[str, Any] = {"instances": labels == 0, "dead": labels > 0}
    found = {}
    for name, ids in maps.items():
        objects = ids > 0
        if name in wrong and objects.any():
            found[name] = float((objects & wrong[name]).sum() / objects.sum())
    return found


def _seen(sample: Sample) -> Seen:
    deviation, mean = torch.std_mean(sample.image.double(), correction=0)
    return Seen(float(mean), float(deviation), sample.size)


def _digest(array: Tensor) -> str:
    return hashlib.blake2b(array.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
