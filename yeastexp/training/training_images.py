"""The training images: transformed and checked, cached if they fit, and the plan by which patches are cut from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from yeastexp.config.experiment import Experiment
from yeastexp.config.settings import Patches, Runtime
from yeastexp.contracts import Dataset, Task
from yeastexp.data import kept_images
from yeastexp.data.kept_images import CachedImages, LazyImages
from yeastexp.data.normalization import Values, ends_of
from yeastexp.data.patches import PatchPlan
from yeastexp.data.transforms import pipeline
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.checked import check_classes
from yeastexp.errors import UserError
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import memory, processes
from yeastexp.system.formatting import format_bytes

Transforms = tuple[BasicTransform2D, ...]


DEFAULT_SIDE = 128
"""The side of a patch in pixels if the file sets none."""

DEVICE_SHARE, MEMORY_SHARE = 0.25, 0.5
"""The largest shares of free memory for the training images; the rest is for activations and other programs."""


def checked_labels(sample: Sample, classes: int) -> Sample:
    """Return the sample. Raises UserError, with the values found, if its labels are not all classes or IGNORE."""
    low, high = (int(extreme) for extreme in sample.labels.aminmax())
    if low < IGNORE or high >= classes:
        seen = sample.labels.unique().tolist()
        shown = ", ".join(map(str, seen[:8])) + (", …" if len(seen) > 8 else "")
        raise UserError(
            f"image '{sample.name}': its labels hold {shown} where [task] classes has 0 to {classes - 1}; "
            "pack the masks again, or name all classes"
            + ("; if 255 marks pixels that are not annotated, add --ignore 255 to pack" if 255 in seen else "")
        )
    return sample


@dataclass(frozen=True)
class Prepared:
    """Reads training images: checked labels, the `[[transform]]` list applied, the task's target planes as maps."""

    dataset: Dataset
    transforms: Transforms
    classes: int
    task: Task

    @property
    def names(self) -> list[str]:
        """The names of the images, in order."""
        return list(self.dataset.splits["train"])

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of each transformed image, (N, 2), computed without reading images."""
        shapes = (self.dataset.shape(name) for name in self.names)
        return np.array([pipeline.grids(self.transforms, (height, width))[-1] for _, height, width in shapes])

    def __call__(self, index: int) -> Sample:
        """Return the transformed image with an index."""
        return self.seen(self.stored(index))

    def stored(self, index: int) -> Sample:
        """Return the image with an index as it is stored."""
        return checked_labels(self.dataset.read(self.names[index]), self.classes)

    def seen(self, stored: Sample) -> Sample:
        """Return a stored sample transformed, with the planes of the task's targets as maps, in their order."""
        # Maps that the task does not use are dropped first: transforming them would take time for nothing.
        maps = {name: stored.maps[name] for name in self.task.maps}
        transformed = pipeline.whole(self.transforms, replace(stored, maps=maps))
        check_classes(self.transforms, transformed.labels, self.classes)
        return self.with_targets(transformed)

    def with_targets(self, sample: Sample) -> Sample:
        """Return a transformed sample with the planes of the task's targets as its maps, in their order."""
        task = self.task
        planes = task.targets(sample) if task.planes else ()
        if len(planes) != len(task.planes):
            fault = f"'targets' gives {len(planes)} planes where 'planes' has {len(task.planes)}"
            raise UserError(f"[task] name: {fault}; say of each how it is interpolated")
        soft = torch.int16 if task.quantized else torch.float32
        maps = {
            f"target {index}": plane.to(soft if interpolation == "bilinear" else torch.int64)
            for index, (plane, interpolation) in enumerate(zip(planes, task.planes, strict=True))
        }
        return replace(sample, maps=maps)


def where_kept(runtime: Runtime, wanted: int, device: torch.device) -> tuple[Literal["device", "memory", "none"], str]:
    """Return where to keep training images of `wanted` bytes, and a line that says so."""
    # Processes on one machine each keep their own copy.
    free = memory.free(torch.device("cpu")) // processes.current().on_machine
    shown = f"[runtime] cache: the training images take {format_bytes(wanted)}; "
    if runtime.cache != "auto":
        return runtime.cache, f"{shown}'{runtime.cache}', as the file says"
    # Worker processes cut patches from main memory: they have no access to the GPU's.
    if device.type != "cpu" and not runtime.workers:
        there = memory.free(device)
        if wanted <= DEVICE_SHARE * there:
            return "device", f"{shown}kept on the device, where {format_bytes(there)} are free"
        shown += f"of {format_bytes(there)} on the device no more than {DEVICE_SHARE:.0%} is for images; "
    if wanted <= MEMORY_SHARE * free:
        return "memory", f"{shown}kept in memory, where {format_bytes(free)} are free"
    shown += f"read again for every patch, since only {format_bytes(free)} are free"
    return "none", f"{shown}; [runtime] workers read ahead"


@dataclass(frozen=True)
class Images:
    """The source that patches are cut from, where it is kept, a line that says so, and the range of values, if known.

    The source has the `count` images of the data set, then the scenes that augmentations composed. `scenes` has the
    index of an augmentation's first scene by the augmentation's position in the list.
    """

    source: CachedImages | LazyImages
    kept: Literal["device", "memory", "none"]
    where: str
    values: Values | None
    count: int
    scenes: Mapping[int, int]

    def labels(self) -> Iterator[Tensor]:
        """Iterate over the labels of the data set's images, without scenes."""
        return itertools.islice(self.source.labels(), self.count)


class _Transformed(Sequence[Sample]):
    """The transformed training images with all maps of the data set, each read when it is indexed."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    def __len__(self) -> int:
        return len(self.prepared.names)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return pipeline.whole(self.prepared.transforms, self.prepared.stored(index))


def fewer_scenes(experiment: Experiment, share: float) -> Experiment:
    """Return an experiment of whose scenes of `pasted_cells` this share is composed."""
    augmentations = tuple(
        replace(part, options={**part.options, "count": math.ceil(share * part.build().count)})
        if part.name == "pasted_cells"
        else part
        for part in experiment.augmentations
    )
    return replace(experiment, augmentations=augmentations)


def composed_scenes(prepared: Prepared, augmentations: Transforms, seed: int) -> tuple[list[Sample], dict[int, int]]:
    """Return the scenes that augmentations compose of the training images, and the index of the first of each.

    Indices continue those of the training images; the key is the augmentation's position in the list.
    """
    scenes: list[Sample] = []
    firsts: dict[int, int] = {}
    for position, augmentation in enumerate(augmentations):
        if augmentation.has("scenes"):
            firsts[position] = len(prepared.names) + len(scenes)
            source = partial(_scene_generator, seed, position)
            scenes += map(prepared.with_targets, augmentation.scenes(_Transformed(prepared), source))
    return scenes, firsts


def _scene_generator(seed: int, position: int, number: int) -> np.random.Generator:
    return generator(seed, "scenes", 0, number, position)


@dataclass(frozen=True)
class WithScenes:
    """Reads training images by index, followed by the scenes."""

    prepared: Prepared
    scenes: Sequence[Sample]

    def __call__(self, index: int) -> Sample:
        count = len(self.prepared.names)
        return self.prepared(index) if index < count else self.scenes[index - count]


def training_images(
    experiment: Experiment,
    task: Task,
    dataset: Dataset,
    transforms: Transforms,
    augmentations: Transforms,
    device: torch.device,
) -> Images:
    """Return the transformed training images of a data set, cached where the experiment and free memory allow."""
    read = Prepared(dataset, transforms, len(experiment.task.classes), task)
    planes = 1 + len(task.planes)
    count, (scenes, firsts) = len(read.names), composed_scenes(read, augmentations, experiment.train.seed)
    sizes = np.concatenate([read.sizes, np.array([scene.size for scene in scenes], np.int64).reshape(-1, 2)])
    wants_foreground = experiment.patches.foreground_fraction > 0
    wanted = kept_images.bytes_of(sizes, experiment.task.channels, planes, task.quantized)
    where, said = processes.current().agreed(where_kept(experiment.runtime, wanted, device))
    if where == "none":
        lazy = LazyImages(
            WithScenes(read, scenes), sizes, experiment.task.channels, wants_foreground, planes, task.quantized
        )
        return Images(lazy, where, said, None, count, firsts)
    # While the images are read into the cache, the range of their stored values is collected for the checkpoint.
    ends: list[Tensor] = []

    def watched(index: int) -> Sample:
        if index >= count:
            return scenes[index - count]
        stored = read.stored(index)
        ends.append(ends_of(stored.image))
        return read.seen(stored)

    there = device if where == "device" else torch.device("cpu")
    kept = CachedImages.reading(watched, sizes, there, wants_foreground)
    return Images(kept, where, said, Values.between(ends, dataset.normalization), count, firsts)


def patch_side(patches: Patches, smallest: int = DEFAULT_SIDE) -> int:
    """Return the side of a patch in pixels, for images whose shortest side is `smallest`."""
    return patches.size or min(DEFAULT_SIDE, smallest)


def plan_patches(patches: Patches, sizes: np.ndarray) -> PatchPlan:
    """Return the images that an epoch's patches are cut from, for images of these sizes (N, 2), and sliding corners."""
    side = patch_side(patches, int(sizes.min()))
    if patches.stride:
        lists = [_sliding(size, side, patches.stride) for size in sizes]
        images = np.repeat(np.arange(len(sizes)), [len(corners) for corners in lists])
        return PatchPlan(side, images, np.concatenate(lists))
    covering = np.maximum(1, np.rint(sizes.prod(axis=1) / side**2)).astype(np.int64)
    counts = np.full(len(sizes), patches.per_image) if patches.per_image else covering
    return PatchPlan(side, np.repeat(np.arange(len(sizes)), counts), None)


def _sliding(size: np.ndarray, side: int, stride: int) -> np.ndarray:
    """Return corners (N, 2) every `stride` pixels; the last ones are moved inwards, to end at the border.

    Along an axis shorter than a patch there is one centred patch, with a negative corner.
    """
    axes = []
    for length in size.tolist():
        last = length - side
        starts = list(range(0, last, stride)) if last > 0 else []
        axes.append([*starts, last if last >= 0 else last // 2])
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
