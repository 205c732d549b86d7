"""Training patches: the batch of any step, in any order, on any process; and where their pixels are kept."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yeastexp import plugins
from yeastexp.contracts import Interpolation
from yeastexp.data.transforms import pipeline
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.geometry import Pixels
from yeastexp.data.workers import made
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE, Sample

Batch = tuple[Tensor, Tensor]
"""Images (B, C, h, w) float32 and targets (B, T, h, w)."""
Planes = tuple[Tensor, Tensor, Tensor]
"""Images (B, C, h, w), label planes (B, L, h, w), the class labels first, and soft planes (B, S, h, w)."""
Transforms = tuple[BasicTransform2D, ...]

KEPT = 2**28
"""Bytes of images that a process keeps where they are read from the data set again and again."""


@dataclass(frozen=True)
class PatchPlan:
    """The patches of an epoch: the image of each, and their corners where those are fixed (sliding patches)."""

    side: int
    images: np.ndarray
    corners: np.ndarray | None


@dataclass(frozen=True)
class ImageBlock:
    """Some patches of a batch, by their places in it, and the pixels that they are cut from."""

    places: np.ndarray
    pixels: Pixels
    images: np.ndarray
    """Of each patch, the number of its image in `pixels`."""
    foreground: list[np.ndarray]
    """The flat places of each image's pixels whose label is above 0, where patches are centred on such."""


def bytes_of(sizes: np.ndarray, channels: int, planes: int = 1) -> int:
    """What images (C, H, W) of these sizes (N, 2) take as pixels: float32 values and int32 label planes."""
    return int(sizes.prod(axis=1).sum()) * 4 * (channels + planes)


def _planes(sample: Sample) -> tuple[Tensor, Tensor]:
    """Values (C + S, H, W) and label planes (L, H, W) int32 of a prepared image: its float maps are soft planes."""
    soft = [plane for plane in sample.maps.values() if plane.is_floating_point()]
    labels = [sample.labels, *(plane for plane in sample.maps.values() if not plane.is_floating_point())]
    values = torch.cat([sample.image, torch.stack(soft)]) if soft else sample.image
    return values, torch.stack(labels).to(torch.int32)


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
        values, labels = torch.empty(0), torch.empty(0, dtype=torch.int32)
        for index, (begin, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
            image, planes = _planes(read(index))
            if not index:
                values = torch.empty(len(image), int(ends[-1]))
                labels = torch.empty(len(planes), int(ends[-1]), dtype=torch.int32)
            values[:, begin:end] = image.flatten(1)
            labels[:, begin:end] = planes.flatten(1)
        kept = cls(Pixels(values, labels, ends - sizes.prod(axis=1), sizes), foreground)
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
        self, read: Callable[[int], Sample], sizes: np.ndarray, channels: int, foreground: bool, planes: int = 1
    ) -> None:
        self.read = read
        self.sizes = sizes
        self.foreground = foreground
        self.most = max(1, KEPT // bytes_of(sizes[[sizes.prod(axis=1).argmax()]], channels, planes))
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
            values, labels = _planes(self.read(image))
            pixels = Pixels.of([values], [labels])
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
    """Training batches by step: images (B, C, h, w) and targets (B, T, h, w), made in any order, on any process.

    A `foreground` share of random patches is centred on a pixel above class 0.
    """

    def __init__(
        self,
        source: CachedImages | LazyImages,
        plan: PatchPlan,
        batch: int,
        augmentations: Transforms,
        seed: int,
        foreground: float = 0.0,
        planes: Sequence[Interpolation] = (),
    ) -> None:
        self.source = source
        self.plan = plan
        self.size = batch
        self.augmentations = augmentations
        self.seed = seed
        self.foreground = foreground
        self.planes = tuple(planes)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; its last batch may be smaller."""
        return -(-len(self.plan.images) // self.size)

    @property
    def soft(self) -> int:
        """How many of the source's channels are target planes."""
        return self.planes.count("bilinear")

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        images, labels, soft = self._cut(step)
        return images, self._targets(labels, soft)

    def labelled(self, step: int) -> tuple[Tensor, Tensor]:
        """The images (B, C, h, w) of a step with their class labels (B, h, w) int64, whatever the targets are."""
        images, labels, _ = self._cut(step)
        return images, labels[:, 0].long()

    def _cut(self, step: int) -> Planes:
        """Images, label planes and soft planes of a step.

        Patches of images that are not kept together are cut image by image, and then brought back to the order in
        which they were drawn.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = _order(self.seed, epoch, len(self.plan.images))[place * self.size : (place + 1) * self.size]
        params = [self._params(epoch, index) for index in chosen.tolist()]
        readings = pipeline.readings(self.augmentations, self.plan.side, params, self.source.device)
        cut, places = [], []
        for block in self.source.laid(self.plan.images[chosen]):
            within = block.places.tolist()
            read = [([where[index] for index in within], size) for where, size in readings]
            corners = [
                self._corner(epoch, index, block, image)
                for index, image in zip(chosen[within].tolist(), block.images, strict=True)
            ]
            drawn = [params[index] for index in within]
            side, images = self.plan.side, block.images
            cut.append(
                pipeline.cut(block.pixels, images, np.stack(corners), side, self.augmentations, drawn, read, self.soft)
            )
            places.append(block.places)
        if len(cut) == 1:
            return cut[0]
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        values, labels, soft = (torch.cat(parts)[back] for parts in zip(*cut, strict=True))
        return values, labels, soft

    def _targets(self, labels: Tensor, soft: Tensor) -> Tensor:
        """Targets (B, T, h, w) from label planes (B, L, h, w), the class labels first, and soft planes.

        Without planes of their own the labels are the targets. What lies outside the image, or is unlabelled, is
        IGNORE in all label planes alike, and NaN in soft planes, which were mirrored at the border like the image.
        """
        if not self.planes:
            return labels[:, :1].long()
        nearest, bilinear = iter(labels[:, 1:].unbind(1)), iter(soft.unbind(1))
        unlabelled = labels[:, 0] == IGNORE
        planes = [
            next(nearest).masked_fill(unlabelled, IGNORE)
            if interpolation == "nearest"
            else next(bilinear).masked_fill(unlabelled, torch.nan)
            for interpolation in self.planes
        ]
        dtype = torch.float32 if "bilinear" in self.planes else torch.int64
        return torch.stack([plane.to(dtype) for plane in planes], dim=1)

    def _corner(self, epoch: int, index: int, block: ImageBlock, image: int) -> np.ndarray:
        if self.plan.corners is not None:
            return np.asarray(self.plan.corners[index])
        size = block.pixels.sizes[image]
        room = size - self.plan.side
        source = generator(self.seed, "window", epoch, index)
        corner: np.ndarray = source.integers(np.maximum(room, 0) + 1)
        if self.foreground and source.random() < self.foreground and len(places := block.foreground[image]):
            centre = np.array(np.divmod(places[source.integers(len(places))], size[1]))
            corner = np.clip(centre - self.plan.side // 2, 0, np.maximum(room, 0))
        return np.where(room >= 0, corner, room // 2)

    def _params(self, epoch: int, index: int) -> list[Any]:
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


class _Plugins:
    """The plugin files of the process that pickles it, loaded where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return plugins.load, (plugins.active(),)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, patches: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(patches)
