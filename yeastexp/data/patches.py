"""The stream of training batches, any step in any order on any process, and where its pixels are kept."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yeastexp import plugins
from yeastexp.data.transforms import pipeline
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.geometry import Pixels
from yeastexp.data.workers import made
from yeastexp.randomness import generator
from yeastexp.sample import Sample

Batch = tuple[Tensor, Tensor]
Transforms = tuple[BasicTransform2D, ...]

KEPT = 2**28
"""Bytes of images that a process keeps where they are read from the data set again and again."""


@dataclass(frozen=True)
class PatchPlan:
    """The windows of an epoch: the image of each, and their corners where those are fixed (sliding windows)."""

    side: int
    images: np.ndarray
    corners: np.ndarray | None


@dataclass(frozen=True)
class ImageBlock:
    """Some windows of a batch, by their places in it, and the pixels that they are cut from."""

    places: np.ndarray
    pixels: Pixels
    images: np.ndarray
    """Of each window, the number of its image in `pixels`."""
    foreground: list[np.ndarray]
    """The flat places of each image's pixels whose label is above 0, where windows are centred on such."""


def bytes_of(sizes: np.ndarray, channels: int) -> int:
    """What images (C, H, W) of these sizes (N, 2) take as pixels: float32 values and a byte of labels."""
    return int(sizes.prod(axis=1).sum()) * (4 * channels + 1)


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
        """The images of a function, which gives image i in `sizes[i]` pixels, laid out one by one."""
        ends = sizes.prod(axis=1).cumsum()
        values, labels = torch.empty(0), torch.empty(1, int(ends[-1]), dtype=torch.int8)
        for index, (begin, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
            sample = read(index)
            if not index:
                values = torch.empty(len(sample.image), int(ends[-1]))
            values[:, begin:end] = sample.image.flatten(1)
            labels[0, begin:end] = sample.labels.flatten()
        kept = cls(Pixels(values, labels, ends - sizes.prod(axis=1), sizes), foreground)
        kept.pixels = kept.pixels.to(device)
        return kept

    @property
    def device(self) -> torch.device:
        """Where windows are cut."""
        return self.pixels.values.device

    def laid(self, images: np.ndarray) -> Iterator[ImageBlock]:
        """The windows of these images, all at once."""
        yield ImageBlock(np.arange(len(images)), self.pixels, images, self.foreground)

    def labels(self) -> Iterator[Tensor]:
        """All labels."""
        yield self.pixels.labels


class LazyImages:
    """Training images that are read whenever windows are cut from them; each process keeps the latest."""

    device = torch.device("cpu")
    """Where windows are cut."""

    def __init__(self, read: Callable[[int], Sample], sizes: np.ndarray, channels: int, foreground: bool) -> None:
        self.read = read
        self.sizes = sizes
        self.foreground = foreground
        self.most = max(1, KEPT // bytes_of(sizes[[sizes.prod(axis=1).argmax()]], channels))
        self.latest: OrderedDict[int, CachedImages] = OrderedDict()

    def laid(self, images: np.ndarray) -> Iterator[ImageBlock]:
        """The windows of these images, image by image."""
        for image in np.unique(images).tolist():
            places = np.flatnonzero(images == image)
            kept = self._kept(image)
            yield ImageBlock(places, kept.pixels, np.zeros(len(places), np.int64), kept.foreground)

    def labels(self) -> Iterator[Tensor]:
        """The labels of one image after the other."""
        return (self.read(image).labels for image in range(len(self.sizes)))

    def _kept(self, image: int) -> CachedImages:
        if image not in self.latest:
            sample = self.read(image)
            pixels = Pixels.of([sample.image], [sample.labels[None].to(torch.int8)])
            self.latest[image] = CachedImages(pixels, self.foreground)
        self.latest.move_to_end(image)
        while len(self.latest) > self.most:
            self.latest.popitem(last=False)
        return self.latest[image]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "latest": OrderedDict()}


def _foreground(pixels: Pixels) -> list[np.ndarray]:
    """The flat places of each image's pixels whose label is above 0."""
    ends = pixels.offsets + pixels.sizes.prod(axis=1)
    labels = pixels.labels[0].cpu().numpy()
    return [
        np.flatnonzero(labels[start:end] > 0).astype(np.int32) for start, end in zip(pixels.offsets, ends, strict=True)
    ]


class PatchSampler:
    """Training batches by step: images (B, C, h, w) and labels (B, h, w); any step, in any order, on any process.

    A `foreground` share of random windows is centred on a pixel above class 0.
    """

    def __init__(
        self,
        source: CachedImages | LazyImages,
        plan: PatchPlan,
        batch: int,
        augmentations: Transforms,
        seed: int,
        foreground: float = 0.0,
    ) -> None:
        self.source = source
        self.plan = plan
        self.size = batch
        self.augmentations = augmentations
        self.seed = seed
        self.foreground = foreground

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; its last batch may be smaller."""
        return -(-len(self.plan.images) // self.size)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = _order(self.seed, epoch, len(self.plan.images))[place * self.size : (place + 1) * self.size]
        drawn = [self._drawn(epoch, index) for index in chosen.tolist()]
        steps = pipeline.readings(self.augmentations, self.plan.side, drawn, self.source.device)
        cut, places = [], []
        for laid in self.source.laid(self.plan.images[chosen]):
            own = laid.places.tolist()
            read = [([where[one] for one in own], size) for where, size in steps]
            cut.append(self._windows(epoch, chosen[own].tolist(), laid, [drawn[one] for one in own], read))
            places.append(laid.places)
        if len(cut) == 1:
            return cut[0]
        values, labels = (torch.cat(parts) for parts in zip(*cut, strict=True))
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        return values[back], labels[back]

    def _windows(
        self, epoch: int, chosen: list[int], laid: ImageBlock, drawn: list[list[Any]], steps: list[pipeline.Reading]
    ) -> Batch:
        """The windows with these numbers in the epoch."""
        corners = [self._corner(epoch, index, laid, image) for index, image in zip(chosen, laid.images, strict=True)]
        side, augmentations = self.plan.side, self.augmentations
        return pipeline.patches(laid.pixels, laid.images, np.stack(corners), side, augmentations, drawn, steps)

    def _corner(self, epoch: int, index: int, laid: ImageBlock, image: int) -> np.ndarray:
        if self.plan.corners is not None:
            return np.asarray(self.plan.corners[index])
        size = laid.pixels.sizes[image]
        room = size - self.plan.side
        source = generator(self.seed, "window", epoch, index)
        corner: np.ndarray = source.integers(np.maximum(room, 0) + 1)
        if self.foreground and source.random() < self.foreground and len(places := laid.foreground[image]):
            centre = np.array(np.divmod(places[source.integers(len(places))], size[1]))
            corner = np.clip(centre - self.plan.side // 2, 0, np.maximum(room, 0))
        return np.where(room >= 0, corner, room // 2)

    def _drawn(self, epoch: int, index: int) -> list[Any]:
        return [
            augmentation.draw(generator(self.seed, "augment", epoch, index, position))
            for position, augmentation in enumerate(self.augmentations)
        ]

    def batches(
        self, first: int, last: int, workers: int = 0, context: str | None = None, pinned: bool = False
    ) -> Iterator[Batch]:
        """The batches of the steps from `first` to before `last`, cut by worker processes where there are any.

        Those come in `pinned` memory, from which a GPU copies them beside its work.
        """
        steps = range(first, last)
        if not workers:
            yield from map(self.batch, steps)
        else:
            yield from made(self.batch, steps, workers, context, pinned)

    def __getstate__(self) -> dict[str, Any]:
        # A worker has to load the plugins before it can unpickle parts that they define, and takes them in this order.
        return {"plugins": _Plugins(), **vars(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        del state["plugins"]
        self.__dict__.update(state)


def prefetch_to_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, on a device.

    On a GPU they are made on a stream of their own: what has to wait there waits for nothing but itself, while the step
    before is still computed.
    """
    if device.type != "cuda":
        yield from ((images.to(device), labels.to(device)) for images, labels in batches)
        return
    training, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(training)
    while True:
        with torch.cuda.stream(own):
            if (batch := next(batches, None)) is None:
                return
            images, labels = (one.to(device, non_blocking=True) for one in batch)
        training.wait_stream(own)
        for one in (images, labels):
            one.record_stream(training)  # their memory is free when that stream is done with it
        yield images, labels


class _Plugins:
    """The plugin files of the process that pickles it, loaded where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return plugins.load, (plugins.active(),)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, windows: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(windows)
