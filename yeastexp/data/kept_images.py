"""Training images kept in memory, or read whenever patches are cut from them."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yeastexp.data.transforms.geometry import Pixels
from yeastexp.sample import Sample

Planes = tuple[Tensor, Tensor, Tensor | None]
"""Values (C + S, H, W), label planes (L, H, W) of 32 bits, or of 16 with soft planes (S, H, W) of 16."""

KEPT = 2**28
"""Bytes of images that a process keeps where they are read from the data set again and again."""


@dataclass(frozen=True)
class ImageBlock:
    """Some patches of a batch, given by their `places` (indices) in it, and the pixels that they are cut from."""

    places: np.ndarray
    pixels: Pixels
    images: np.ndarray
    """The index in `pixels` of the image of each patch."""
    foreground: list[np.ndarray]
    """For each image the flat indices of its pixels with a label above 0; empty if no patch is centred on them."""


def bytes_of(sizes: np.ndarray, channels: int, planes: int = 1, quantized: bool = False) -> int:
    """Bytes of images of sizes (N, 2): float32 channels, and further planes of 32 bits, or of 16 if `quantized`."""
    return int(sizes.prod(axis=1).sum()) * (4 * channels + (2 if quantized else 4) * planes)


def _planes(sample: Sample) -> Planes:
    """The planes of a prepared image, by the types of its maps: float and int16 ones are soft, int64 ones labels."""
    floats = [plane for plane in sample.maps.values() if plane.is_floating_point()]
    small = [plane for plane in sample.maps.values() if plane.dtype == torch.int16]
    labels = [sample.labels, *(plane for plane in sample.maps.values() if plane.dtype == torch.int64)]
    values = torch.cat([sample.image, torch.stack(floats)]) if floats else sample.image
    if not small:
        return values, torch.stack(labels).to(torch.int32), None
    return values, torch.stack(labels).to(torch.int16), torch.stack(small)


class CachedImages:
    """All training images, laid out once, in memory or on a device."""

    def __init__(self, pixels: Pixels, foreground: bool = False) -> None:
        self.pixels = pixels
        self.sizes = pixels.sizes
        self.foreground = _foreground(pixels) if foreground else []

    @classmethod
    def reading(
        cls, read: Callable[[int], Sample], sizes: np.ndarray, device: torch.device, foreground: bool = False
    ) -> CachedImages:
        """Cache the images `read(i)`, of `sizes[i]`; only one is in memory beside those laid out."""
        ends = sizes.prod(axis=1).cumsum()
        laid: list[Tensor | None] = []
        for index, (begin, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
            image = _planes(read(index))
            if not index:
                laid = [None if part is None else part.new_empty(len(part), int(ends[-1])) for part in image]
            for whole, part in zip(laid, image, strict=True):
                if whole is not None and part is not None:
                    whole[:, begin:end] = part.flatten(1)
        values, labels, soft = laid
        assert values is not None and labels is not None, "there is an image"
        kept = cls(Pixels(values, labels, ends - sizes.prod(axis=1), sizes, soft), foreground)
        kept.pixels = kept.pixels.to(device)
        return kept

    @property
    def device(self) -> torch.device:
        """Where patches are cut."""
        return self.pixels.values.device

    def laid(self, images: np.ndarray) -> Iterator[ImageBlock]:
        """The patches of these images, all at once."""
        yield ImageBlock(np.arange(len(images)), self.pixels, images, self.foreground)

    def labels(self) -> Iterator[Tensor]:
        """The labels of one image after the other, flat."""
        return iter(self.pixels.labels[0].split(self.pixels.sizes.prod(axis=1).tolist()))


class LazyImages:
    """Training images that are read whenever patches are cut from them; each process keeps the latest."""

    device = torch.device("cpu")
    """Where patches are cut."""

    def __init__(
        self,
        read: Callable[[int], Sample],
        sizes: np.ndarray,
        channels: int,
        foreground: bool,
        planes: int = 1,
        quantized: bool = False,
    ) -> None:
        self.read = read
        self.sizes = sizes
        self.foreground = foreground
        largest = sizes[[sizes.prod(axis=1).argmax()]]
        self.most = max(1, KEPT // bytes_of(largest, channels, planes, quantized))
        self.latest: OrderedDict[int, CachedImages] = OrderedDict()

    def laid(self, images: np.ndarray) -> Iterator[ImageBlock]:
        """The patches of these images, image by image."""
        for image in np.unique(images).tolist():
            places = np.flatnonzero(images == image)
            kept = self._kept(image)
            yield ImageBlock(places, kept.pixels, np.zeros(len(places), np.int64), kept.foreground)

    def labels(self) -> Iterator[Tensor]:
        """The labels of one image after the other."""
        return (self.read(image).labels for image in range(len(self.sizes)))

    def _kept(self, image: int) -> CachedImages:
        if image not in self.latest:
            values, labels, soft = _planes(self.read(image))
            pixels = Pixels.of([values], [labels])
            if soft is not None:
                pixels = replace(pixels, soft=soft.flatten(1))
            self.latest[image] = CachedImages(pixels, self.foreground)
        self.latest.move_to_end(image)
        while len(self.latest) > self.most:
            self.latest.popitem(last=False)
        return self.latest[image]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "latest": OrderedDict()}


def _foreground(pixels: Pixels) -> list[np.ndarray]:
    """For each image the flat indices of its pixels with a label above 0."""
    ends = pixels.offsets + pixels.sizes.prod(axis=1)
    labels = pixels.labels[0].cpu().numpy()
    return [
        np.flatnonzero(labels[start:end] > 0).astype(np.int32) for start, end in zip(pixels.offsets, ends, strict=True)
    ]
