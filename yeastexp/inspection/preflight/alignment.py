"""A check that labels follow the image under every transform: a disc painted on both has to come out in one place.

For transforms that only define `geometry` this holds by construction. But `image`, `batch` and `labels` of a plugin can
do anything, and training on displaced labels raises no error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from yeastexp.data.transforms import BasicTransform2D, pipeline
from yeastexp.data.transforms.geometry import Pixels
from yeastexp.inspection.preflight.finding import Finding
from yeastexp.randomness import generator
from yeastexp.sample import IGNORE, Sample
from yeastexp.system.formatting import format_count
from yeastexp.training.build import Assembly

DRAWS = 64
"""The number of discs, each with params of its own: one of them meets an augmentation with p = 0.05 in 96 of 100
checks."""

WHOLE_IMAGES = 8
"""The number of discs on a whole image, for each `[[transform]]`."""

MAX_SIDE = 96
"""The largest side in pixels of the patches that discs are painted on."""

TOLERANCE_PX = 1.5
"""The distance up to which both count as in one place: images are interpolated, labels are not."""

MIN_DISC_PX = 9
"""The area in pixels below which too little of a disc is left to compare."""

VISIBLE = 0.1
"""The share of the strongest change of all draws below which a disc counts as hidden."""

ALL = "all together"

Apply = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images (B, C, H, W) and labels (B, H, W) through a transform, with the same params at every call."""


@dataclass(frozen=True)
class Alignment:
    """The result for one transform, or for all together: the distances in pixels between image and labels."""

    table: str
    name: str
    distances: tuple[float, ...]
    repeatable: bool = True
    invalid_labels: tuple[int, ...] = ()
    finite: bool = True

    @property
    def apart(self) -> list[float]:
        """The distances above the tolerance."""
        return [distance for distance in self.distances if distance > TOLERANCE_PX]


@dataclass(frozen=True)
class _Discs:
    """Pairs of images (B, C, h, w) that differ in the value of a disc alone, and the disc as a label map (B, h, w)."""

    dark: Tensor
    bright: Tensor
    labels: Tensor


def check_alignment(assembly: Assembly) -> list[Alignment]:
    """Check each transform and each augmentation alone, then all augmentations together."""
    # A plugin may do right alone and wrong in a list, where neighbouring geometries are composed.
    checked = [_check_transform(assembly, name, transform) for name, transform in _transforms(assembly)]
    augmentations = dict(enumerate(assembly.sampler.augmentations))
    if not augmentations:
        return checked
    side = min(assembly.sampler.plan.side, MAX_SIDE)
    # Twice the side, of which the patch is the middle: a geometry that moves pixels finds real ones beside the patch.
    images, labels = _patches(assembly, 2 * side)
    discs = _painted(images, side, assembly.experiment.train.seed)
    groups = [(part.name, {i: augmentations[i]}) for i, part in enumerate(assembly.experiment.augmentations)]
    for name, group in [*groups, (ALL, augmentations)] if len(groups) > 1 else groups:
        apply = _augmenter(assembly, group, len(images), side)
        checked.append(_check("[[augment]]", name, apply, discs, (discs.dark, labels), len(assembly.classes)))
    return checked


def _transforms(assembly: Assembly) -> Iterator[tuple[str, BasicTransform2D]]:
    """The names and the transforms that are applied: normalising ones are not, where the data are stored normalised."""
    normalized = bool(assembly.dataset.normalization)
    kept = [part.name for part in assembly.experiment.transforms if not (part.build().normalizes and normalized)]
    return zip(kept, assembly.transforms, strict=True)


def _check_transform(assembly: Assembly, name: str, transform: BasicTransform2D) -> Alignment:
    """Check one `[[transform]]` on copies of the smallest training image, which takes the least time."""
    dataset = assembly.dataset
    smallest = min(dataset.splits["train"], key=lambda name: int(np.prod(dataset.shape(name)[1:])))
    sample = dataset.read(smallest)

    def apply(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        samples = (Sample(image, mask, smallest) for image, mask in zip(images, labels, strict=True))
        transformed = [pipeline.whole((transform,), copy) for copy in samples]
        return torch.stack([copy.image for copy in transformed]), torch.stack([copy.labels for copy in transformed])

    copies = sample.image.expand(WHOLE_IMAGES, -1, -1, -1)
    discs = _painted(copies, min(sample.size), assembly.experiment.train.seed)
    real = (sample.image[None], sample.labels[None])
    return _check("[[transform]]", name, apply, discs, real, len(assembly.classes))


def _patches(assembly: Assembly, side: int) -> tuple[Tensor, Tensor]:
    """Patches of training images (B, C, h, w) with their labels (B, h, w)."""
    kept = assembly.sampler.source
    source = generator(assembly.experiment.train.seed, "preflight windows")
    images = np.sort(source.integers(len(kept.sizes), size=DRAWS))
    room = kept.sizes[images] - side
    corners = np.where(room >= 0, source.integers(np.maximum(room, 0) + 1), room // 2)
    # Without the soft planes of the targets, which augmentations of an image are never given.
    soft = assembly.sampler.soft
    cut = [
        pipeline.cut(part.pixels, part.images, corners[part.places], side, (), [[] for _ in part.places], soft=soft)
        for part in kept.laid(images)
    ]
    values, planes, _ = (torch.cat(parts).cpu() for parts in zip(*cut, strict=True))
    return values, planes[:, 0].long()


def _painted(images: Tensor, side: int, seed: int) -> _Discs:
    """Paint a disc near the middle of each image (B, C, H, W), once in its lowest and once in its highest value."""
    # In values that the image has already, the disc does not change its range: a transform that takes the range of the
    # image then treats both versions of it alike.
    source = generator(seed, "preflight spots")
    height, width = images.shape[-2:]
    radius = max(2.0, min(side, MAX_SIDE) / 16)
    offsets = source.uniform(-side / 4, side / 4, (len(images), 2)).tolist()
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    inside = torch.stack(
        [torch.hypot(rows - (height - 1) / 2 - y, columns - (width - 1) / 2 - x) <= radius for y, x in offsets]
    )
    low, high = (end[:, :, None, None] for end in (images.amin(dim=(2, 3)), images.amax(dim=(2, 3))))
    high = torch.where(high > low, high, low + 1)
    dark, bright = (torch.where(inside[:, None], value, images) for value in (low, high))
    return _Discs(dark, bright, inside.long())


def _augmenter(assembly: Assembly, augmentations: dict[int, BasicTransform2D], count: int, side: int) -> Apply:
    """Apply augmentations, by their place in the experiment's list, with params that are drawn once, here."""
    seed = assembly.experiment.train.seed
    params = [
        [transform.draw(generator(seed, "preflight draws", 0, patch, i)) for i, transform in augmentations.items()]
        for patch in range(count)
    ]

    def apply(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        corners = np.tile((np.array(images.shape[-2:]) - side) // 2, (count, 1))
        pixels = Pixels.stacked(images, labels[:, None]).to(assembly.device)
        transforms = tuple(augmentations.values())
        values, masks = pipeline.patches(pixels, np.arange(count), corners, side, transforms, params)
        return values.cpu(), masks.cpu()

    return apply


def _check(table: str, name: str, apply: Apply, discs: _Discs, real: tuple[Tensor, Tensor], classes: int) -> Alignment:
    # What differs between the dark and the bright disc's image is the disc, whatever else the transform does to the
    # image. The same image twice tells whether params decide all: if not, the difference of the two means nothing.
    blank = torch.zeros_like(discs.labels)
    dark, blank_labels = apply(discs.dark, blank)
    again, _ = apply(discs.dark, blank)
    bright, disc_labels = apply(discs.bright, discs.labels)
    _, labels = apply(*real)
    return Alignment(
        table,
        name,
        tuple(_distances(dark, bright, blank_labels, disc_labels)),
        repeatable=torch.allclose(dark, again, rtol=0, atol=0, equal_nan=True),
        invalid_labels=tuple(int(label) for label in labels.unique() if not IGNORE <= label < classes),
        finite=bool(dark.isfinite().all() and bright.isfinite().all()),
    )


def _distances(dark: Tensor, bright: Tensor, blank: Tensor, labels: Tensor) -> Iterator[float]:
    """The distances between the disc in the image and in the labels, of the images in which both show it whole."""
    changed = (bright - dark).abs().sum(dim=1)
    changed = torch.where(labels == IGNORE, torch.zeros_like(changed), changed)
    # Statistics of the image, if a transform takes them, change all pixels a little: half of them no more than this.
    changed = (changed - changed.flatten(1).median(dim=1).values[:, None, None]).clamp_min(0)
    peaks = changed.amax(dim=(1, 2))
    for image, peak, new, old in zip(changed, peaks, labels, blank, strict=True):
        disc = (new != old) & (new != IGNORE)
        cut_off = disc[1:-1, 1:-1].sum() < disc.sum()  # by the border, where a blur moves the half of its height
        if disc.sum() >= MIN_DISC_PX and not cut_off and peak > VISIBLE * peaks.max():
            yield _distance((image > peak / 2).numpy(), disc.numpy())


def _distance(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The smaller of the two directed Hausdorff distances between masks, in pixels."""
    # The smaller one, as a transform may cover a part of the disc in the image alone: what is left of it is then inside
    # the other mask and has not moved. A displacement makes both distances large.
    return min(
        float(ndimage.distance_transform_edt(~inside)[outside].max())
        for inside, outside in ((first, second), (second, first))
    )


def findings(checked: Sequence[Alignment]) -> list[Finding]:
    """The faults of single transforms; only if there are none, those of all augmentations together."""
    alone = [finding for alignment in checked if alignment.name != ALL for finding in _faults(alignment)]
    return alone or [finding for alignment in checked if alignment.name == ALL for finding in _faults(alignment)]


def _faults(alignment: Alignment) -> Iterator[Finding]:
    where = f"{alignment.table} {alignment.name}"
    if not alignment.finite:
        yield Finding(
            "error",
            "NaN or infinite values",
            f"{where}: gives NaN or infinite values",
            "The loss of such a batch is not finite, and training stops",
            "look for a division by zero, a root or logarithm of negative values, or a power of them",
        )
    if not alignment.repeatable:
        yield Finding(
            "warning",
            "augmentation not repeatable",
            f"{where}: the same params gave two different images",
            "No run with it is reproducible or can be resumed exactly, and alignment of labels cannot be checked",
            "draw all random numbers in its 'draw', from the generator given",
        )
    if alignment.apart and alignment.repeatable and alignment.finite:
        yield Finding(
            "error",
            "image and labels misaligned",
            f"{where}: a disc painted on image and labels came out in two places in {len(alignment.apart)} of "
            f"{format_count(len(alignment.distances), 'draw')}, up to {max(alignment.apart):.1f} px apart",
            "The model would learn from labels of other pixels",
            "return where pixels come from in 'geometry', which moves both; 'image' may change values only",
        )
    if alignment.invalid_labels:
        yield Finding(
            "error",
            "invalid labels",
            f"{where}: gives the labels {', '.join(map(str, alignment.invalid_labels[:8]))}",
            "The loss fails on a label without a class in [task]",
            "let its 'labels' give class indices, or -1 for unlabelled pixels",
        )


__all__ = ["ALL", "TOLERANCE_PX", "Alignment", "check_alignment", "findings"]
