"""Whether images and labels stay in step under transforms: a spot painted on both has to come out at one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
"""Spots, each with a draw of its own; of an augmentation with p = 0.05, 96 in 100 see one that acts."""

WHOLE_IMAGES = 8
"""Spots on a whole image, for each `[[transform]]`."""

LARGEST_SIDE = 96
"""Pixels of the windows that spots are painted on."""

TOLERANCE_PX = 1.5
"""By which both stick out of each other: images are read between pixels and labels at the nearest."""

LEAST_PX = 9
"""Pixels of a spot that is left to be compared."""

VISIBLE = 0.1
"""Of the strongest change of all draws: less is a spot that is hidden, and what its values did to all others."""

ALL = "all together"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Carried:
    """What became of the spots under a transform, or under all: distances in pixels between image and labels."""

    table: str
    name: str
    distances: tuple[float, ...]
    repeatable: bool = True
    odd_labels: tuple[int, ...] = ()
    """Labels that are neither IGNORE nor a class."""
    finite: bool = True
    """Whether all values are numbers."""

    @property
    def apart(self) -> list[float]:
        """The distances that are too large."""
        return [one for one in self.distances if one > TOLERANCE_PX]


@dataclass(frozen=True)
class _Spots:
    """Windows (B, C, h, w) with a dark and with a bright spot, which differ in nothing else, and where it is (B, h, w).

    The labels of the first are 0 everywhere, those of the second 1 on the spot.
    """

    dark: Tensor
    bright: Tensor
    labels: Tensor


def carried(assembly: Assembly) -> list[Carried]:
    """Every transform and every augmentation alone, then all augmentations together."""
    parts = assembly.experiment.augmentations
    augmentations = list(zip((part.name for part in parts), assembly.sampler.augmentations, strict=True))
    found = [_on_whole_images(assembly, name, one) for name, one in _moving(assembly)]
    if not augmentations:
        return found
    side = min(assembly.sampler.plan.side, LARGEST_SIDE)
    windows, truth = _windows(assembly, 2 * side)
    spots = _painted(windows, side, assembly.experiment.train.seed)
    for position, (name, augmentation) in enumerate(augmentations):
        found.append(_through(assembly, name, {position: augmentation}, spots, truth, side))
    if len(augmentations) > 1:
        everything = dict(enumerate(assembly.sampler.augmentations))
        found.append(_through(assembly, ALL, everything, spots, truth, side))
    return found


def _moving(assembly: Assembly) -> Iterator[tuple[str, BasicTransform2D]]:
    """The transforms that are applied, with their names."""
    normalized = bool(assembly.dataset.normalization)
    kept = [part.name for part in assembly.experiment.transforms if not (part.build().normalizes and normalized)]
    return zip(kept, assembly.transforms, strict=True)


def _windows(assembly: Assembly, side: int) -> tuple[Tensor, Tensor]:
    """Pieces of training images (B, C, h, w) with their labels (B, h, w)."""
    kept = assembly.sampler.source
    source = generator(assembly.experiment.train.seed, "preflight windows")
    images = np.sort(source.integers(len(kept.sizes), size=DRAWS))
    room = kept.sizes[images] - side
    corners = np.where(room >= 0, source.integers(np.maximum(room, 0) + 1), room // 2)
    cut = [
        pipeline.windows(one.pixels, one.images, corners[one.places], side, (), [[] for _ in one.places])
        for one in kept.laid(images)
    ]
    values, labels = (torch.cat(parts).cpu() for parts in zip(*cut, strict=True))
    return values, labels


def _painted(windows: Tensor, side: int, seed: int) -> _Spots:
    """A disc on each window, about its middle, as dark and as bright as the window anywhere is: its range stays."""
    source = generator(seed, "preflight spots")
    height, width = windows.shape[-2:]
    radius = max(2.0, min(side, LARGEST_SIDE) / 16)
    away = source.uniform(-side / 4, side / 4, (len(windows), 2))
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    discs = [
        torch.hypot(rows - (height - 1) / 2 - y, columns - (width - 1) / 2 - x) <= radius for y, x in away.tolist()
    ]
    inside = torch.stack(discs)
    low, high = (end[:, :, None, None] for end in (windows.amin(dim=(2, 3)), windows.amax(dim=(2, 3))))
    high = torch.where(high > low, high, low + 1)
    dark, bright = (torch.where(inside[:, None], end, windows) for end in (low, high))
    return _Spots(dark, bright, inside.long())


def _through(
    assembly: Assembly,
    name: str,
    augmentations: dict[int, BasicTransform2D],
    spots: _Spots,
    truth: Tensor,
    side: int,
) -> Carried:
    """The windows with a dark spot twice, with a bright one once, and their own labels, under the same draws."""
    seed, count = assembly.experiment.train.seed, len(spots.dark)
    drawn = [
        [one.draw(generator(seed, "preflight draws", 0, window, position)) for position, one in augmentations.items()]
        for window in range(count)
    ]

    def cut(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        corners = np.tile((np.array(images.shape[-2:]) - side) // 2, (count, 1))
        pixels = Pixels.stacked(images, labels[:, None]).to(assembly.device)
        values, found = pipeline.windows(pixels, np.arange(count), corners, side, tuple(augmentations.values()), drawn)
        return values.cpu(), found.cpu()

    nothing = torch.zeros_like(spots.labels)
    before, blank = cut(spots.dark, nothing)
    again, _ = cut(spots.dark, nothing)
    after, labels = cut(spots.bright, spots.labels)
    _, own = cut(spots.dark, truth)
    distances = _distances(before, after, blank, labels)
    odd = _odd(own, len(assembly.classes))
    return Carried("[[augment]]", name, tuple(distances), _same(before, again), odd, _are_numbers(before, after))


def _on_whole_images(assembly: Assembly, name: str, transform: BasicTransform2D) -> Carried:
    """The same on one training image, of which a disc at a time is painted."""
    dataset = assembly.dataset
    smallest = min(dataset.splits["train"], key=lambda one: int(np.prod(dataset.shape(one)[1:])))
    sample = dataset.read(smallest)

    def seen(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        done = [
            pipeline.whole((transform,), Sample(image, mask, smallest))
            for image, mask in zip(images, labels, strict=True)
        ]
        return torch.stack([one.image for one in done]), torch.stack([one.labels for one in done])

    spots = _painted(sample.image.expand(WHOLE_IMAGES, -1, -1, -1), min(sample.size), assembly.experiment.train.seed)
    nothing = torch.zeros_like(spots.labels)
    before, blank = seen(spots.dark, nothing)
    again, _ = seen(spots.dark, nothing)
    after, labels = seen(spots.bright, spots.labels)
    distances = _distances(before, after, blank, labels)
    own = pipeline.whole((transform,), replace(sample, maps={})).labels
    odd = _odd(own, len(assembly.classes))
    return Carried("[[transform]]", name, tuple(distances), _same(before, again), odd, _are_numbers(before, after))


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two images have the same values, NaN for NaN."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def _are_numbers(*images: Tensor) -> bool:
    return all(bool(image.isfinite().all()) for image in images)


def _odd(labels: Tensor, classes: int) -> tuple[int, ...]:
    return tuple(int(label) for label in labels.unique() if not IGNORE <= label < classes)


def _distances(before: Tensor, after: Tensor, blank: Tensor, labels: Tensor) -> Iterator[float]:
    """For each window in which both show the spot, how far apart they show it."""
    changed = (after - before).abs().sum(dim=1)
    changed = torch.where(labels == IGNORE, torch.zeros_like(changed), changed)
    changed = (changed - changed.flatten(1).median(dim=1).values[:, None, None]).clamp_min(0)
    peaks = changed.amax(dim=(1, 2))
    for image, peak, new, old in zip(changed, peaks, labels, blank, strict=True):
        spot = (new != old) & (new != IGNORE)
        framed = spot[1:-1, 1:-1].sum() < spot.sum()  # cut off by the window's border, where blur makes a difference
        if spot.sum() >= LEAST_PX and not framed and peak > VISIBLE * peaks.max():
            yield _sticking_out((image > peak / 2).numpy(), spot.numpy())


def _sticking_out(one: Mask, other: Mask) -> float:
    """How far each of two masks sticks out of the other, the lesser of both: what hides a part of one moves nothing."""
    return min(
        float(ndimage.distance_transform_edt(~inside)[outside].max())
        for inside, outside in ((one, other), (other, one))
    )


Said = Callable[[Carried], Finding | None]


def findings(found: Sequence[Carried]) -> list[Finding]:
    """What is wrong; of all together only where each alone is right."""
    alone = [one for one in found if one.name != ALL]
    said: tuple[Said, ...] = (_not_numbers, _unrepeatable, _apart, _labelled_oddly)
    wrong = [finding for one in alone for say in said if (finding := say(one))]
    together = [one for one in found if one.name == ALL]
    return wrong or [finding for one in together for say in said if (finding := say(one))]


def _where(one: Carried) -> str:
    return f"{one.table} {one.name}"


def _not_numbers(one: Carried) -> Finding | None:
    if one.finite:
        return None
    return Finding(
        "error",
        "values that are no numbers",
        f"{_where(one)}: gives NaN or infinite values",
        "The loss of such a batch is no number either, and training stops",
        "look for a division by zero, a root or logarithm of negative values, or a power of them",
    )


def _unrepeatable(one: Carried) -> Finding | None:
    if one.repeatable:
        return None
    return Finding(
        "warning",
        "augmentation not repeatable",
        f"{_where(one)}: the same draw gave two different images",
        "No run with it can be repeated or resumed to the same bits, and whether labels follow cannot be told",
        "draw all random numbers in its 'draw', from the generator given",
    )


def _apart(one: Carried) -> Finding | None:
    if not one.apart or not one.repeatable or not one.finite:
        return None
    return Finding(
        "error",
        "image and labels out of step",
        f"{_where(one)}: a spot painted on image and labels alike came out at two places in {len(one.apart)} of "
        f"{format_count(len(one.distances), 'draw')}, up to {max(one.apart):.1f} px apart",
        "The model would learn from labels that are not those of the pixels below them",
        "let it say where pixels come from in 'geometry', which moves both; 'image' may change values alone",
    )


def _labelled_oddly(one: Carried) -> Finding | None:
    if not one.odd_labels:
        return None
    return Finding(
        "error",
        "labels that are no classes",
        f"{_where(one)}: gives the labels {', '.join(map(str, one.odd_labels[:8]))}",
        "The loss fails on a label that no class of [task] has",
        "let its 'labels' give class indices, or -1 where nothing is known",
    )


__all__ = ["ALL", "TOLERANCE_PX", "Carried", "carried", "findings"]
