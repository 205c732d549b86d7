"""Training patches: the batch of any step, in any order, on any process."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yeastexp.contracts import Interpolation
from yeastexp.data.kept_images import CachedImages, ImageBlock, LazyImages
from yeastexp.data.transforms import pipeline
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.checked import check_classes
from yeastexp.data.workers import WithPlugins, made
from yeastexp.randomness import Generators, generator
from yeastexp.sample import IGNORE
from yeastexp.system.cores import OneThread
from yeastexp.tasks.shares import UNKNOWN, in_16_bits

Batch = tuple[Tensor, Tensor]
"""Images (B, C, h, w) float32 and targets (B, T, h, w)."""
Planes = tuple[Tensor, Tensor, Tensor]
"""Images (B, C, h, w), label planes (B, L, h, w), class labels first, soft planes (B, S, h, w), int16 if kept so."""
Transforms = tuple[BasicTransform2D, ...]


@dataclass(frozen=True)
class PatchPlan:
    """The patches of an epoch: the image of each, and their corners where those are fixed (sliding patches)."""

    side: int
    images: np.ndarray
    corners: np.ndarray | None


class PatchSampler(WithPlugins):
    """Training batches by step: images (B, C, h, w) and targets (B, T, h, w), made in any order, on any process.

    A `foreground` share of random patches is centred on a pixel above class 0. `scenes` maps the position of an
    augmentation that composes scenes to the index of its first scene in `source`. Labels beyond the number of `classes`
    that augmentations make are refused, except on a GPU, where looking at them would make the host wait.
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
        scenes: Mapping[int, int] | None = None,
        classes: int | None = None,
    ) -> None:
        self.source = source
        self.plan = plan
        self.size = batch
        self.augmentations = augmentations
        self.seed = seed
        self.foreground = foreground
        self.planes = tuple(planes)
        self.scenes = dict(scenes or {})
        self.classes = classes
        self.draws, self.corners = Generators(seed, "augment"), Generators(seed, "window")

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; its last batch may be smaller."""
        return -(-len(self.plan.images) // self.size)

    @property
    def soft(self) -> int:
        """How many of the source's channels are target planes."""
        return self.planes.count("bilinear")

    def batch(self, step: int, shard: int = 0, shards: int = 1) -> Batch:
        """The batch of a step, counted from 0, or one of `shards` parts of it, each a run of consecutive patches."""
        chosen = self.patches(step)
        images, labels, soft = self._cut(step, chosen if shards == 1 else np.array_split(chosen, shards)[shard])
        return images, self.targets(labels, soft)

    def labelled(self, step: int) -> tuple[Tensor, Tensor]:
        """The images (B, C, h, w) of a step with their class labels (B, h, w) int64, whatever the targets are."""
        images, labels, _ = self._cut(step, self.patches(step))
        return images, labels[:, 0].long()

    def patches(self, step: int) -> np.ndarray:
        """The indices, within their epoch, of the patches of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return _order(self.seed, epoch, len(self.plan.images))[place * self.size : (place + 1) * self.size]

    @OneThread()
    def _cut(self, step: int, chosen: np.ndarray) -> Planes:
        """Images, label planes and soft planes of patches of a step.

        Patches of images that are not kept together are cut image by image, and then brought back to the order in
        which they were drawn.
        """
        epoch = step // self.steps_per_epoch
        params = [self._params(epoch, index) for index in chosen.tolist()]
        # For all patches together: how far a stage reads follows from the patch that needs most, and must not depend on
        # how the patches are divided into blocks, which follows from where images are kept.
        readings = pipeline.readings(self.augmentations, self.plan.side, params, self.source.device)
        cut, places = [], []
        images = [self._image(index, given) for index, given in zip(chosen.tolist(), params, strict=True)]
        for block in self.source.laid(np.array(images)):
            within = block.places.tolist()
            corners = [
                self._corner(epoch, index, block, image, images[place] == self.plan.images[index])
                for place, index, image in zip(within, chosen[within].tolist(), block.images, strict=True)
            ]
            drawn, read = [params[index] for index in within], pipeline.part_of(readings, within)
            where = block.pixels, block.images, np.stack(corners), self.plan.side
            values, labels, soft = pipeline.cut(*where, self.augmentations, drawn, read, self.soft)
            cut.append((values, labels, soft if block.pixels.soft is None else in_16_bits(soft)))
            places.append(block.places)
            if self.classes and labels.device.type == "cpu":
                check_classes(self.augmentations, labels[:, 0], self.classes)
        if len(cut) == 1:
            return cut[0]
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        values, labels, soft = (torch.cat(parts)[back] for parts in zip(*cut, strict=True))
        return values, labels, soft

    def targets(self, labels: Tensor, soft: Tensor) -> Tensor:
        """Targets (B, T, h, w) from label planes (B, L, h, w), the class labels first, and soft planes.

        Without `planes` the class labels are the targets. Pixels that are unlabelled or outside the image are IGNORE in
        every label plane, and NaN (in 16 bits UNKNOWN) in soft planes, which were mirrored at the border like images.
        """
        if not self.planes:
            return labels[:, :1].long()
        nearest, bilinear = iter(labels[:, 1:].unbind(1)), iter(soft.unbind(1))
        unlabelled, quantized = labels[:, 0] == IGNORE, soft.dtype == torch.int16
        planes = [
            next(nearest).masked_fill(unlabelled, IGNORE)
            if interpolation == "nearest"
            else next(bilinear).masked_fill(unlabelled, UNKNOWN if quantized else torch.nan)
            for interpolation in self.planes
        ]
        dtype = soft.dtype if "bilinear" in self.planes else torch.int64
        return torch.stack([plane.to(dtype) for plane in planes], dim=1)

    def _image(self, index: int, params: list[Any]) -> int:
        """The index of the image that a patch is cut from: the plan's, unless an augmentation has drawn a scene."""
        for position, first in self.scenes.items():
            if (number := self.augmentations[position].scene(params[position])) is not None:
                return first + number
        return int(self.plan.images[index])

    def _corner(self, epoch: int, index: int, block: ImageBlock, image: int, planned: bool) -> np.ndarray:
        """The corner (2,) of a patch; below 0 on an axis where the image is smaller and lies in the patch's middle."""
        if self.plan.corners is not None and planned:
            return np.asarray(self.plan.corners[index])
        room = (size := block.pixels.sizes[image]) - self.plan.side
        source = self.corners(epoch, index)
        corner: np.ndarray = source.integers(np.maximum(room, 0) + 1)
        if self.foreground and source.random() < self.foreground and len(places := block.foreground[image]):
            centre = np.array(np.divmod(places[source.integers(len(places))], size[1]))
            corner = np.clip(centre - self.plan.side // 2, 0, np.maximum(room, 0))
        return np.where(room >= 0, corner, room // 2)

    def _params(self, epoch: int, index: int) -> list[Any]:
        return [each.draw(self.draws(epoch, index, place)) for place, each in enumerate(self.augmentations)]

    def batches(
        self, first: int, last: int, workers: int = 0, pinned: bool = False, context: str | None = None
    ) -> Iterator[Batch]:
        """The batches of the steps from `first` to before `last`; those of workers may come in `pinned` memory."""
        return made(self.batch, range(first, last), workers, context, pinned)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, patches: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(patches)
