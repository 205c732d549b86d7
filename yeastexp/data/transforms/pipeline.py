"""A list of transforms applied: to whole images, and to the patches of a batch.

Neighbouring geometric transforms are composed and pixels are read once. The listed order decides the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yeastexp.data.pieces import Pieces
from yeastexp.data.transforms.base import BasicTransform2D, Size
from yeastexp.data.transforms.checked import checked, placed
from yeastexp.data.transforms.geometry import (
    Batched,
    Coordinates,
    Followed,
    Pixels,
    Stacked,
    compose,
    compose_together,
    extent,
    extents,
    identities,
    read,
    translation,
    translations,
)
from yeastexp.randomness import generator
from yeastexp.sample import Sample

Transforms = Sequence[BasicTransform2D]

Reading = tuple[Batched, Size]
"""The coordinates of each patch of a batch, counted from the centres of output and input, and the output's size."""


@dataclass(frozen=True)
class Stage:
    """One resampling through composed geometry, then at most one change of values.

    Both are positions in the list of transforms.
    """

    geometry: tuple[int, ...]
    values: int | None


def stages(transforms: Transforms) -> list[Stage]:
    """The list of transforms cut into stages, each as much as one resampling can do.

    A transform with both hooks changes values first, as the filter before a coarser grid has to: its geometry opens
    the next stage.
    """
    complete: list[Stage] = []
    waiting: tuple[int, ...] = ()
    for position, transform in enumerate(transforms):
        if transform.has("image") or transform.has("labels") or transform.has("batch"):
            complete.append(Stage(waiting, position))
            waiting = ()
        if transform.has("geometry"):
            waiting = (*waiting, position)
    return [*complete, Stage(waiting, None)] if waiting else complete


def whole(transforms: Transforms, sample: Sample) -> Sample:
    """A whole image transformed, with its labels and maps."""
    source = generator(0, "whole image")
    for stage in stages(transforms):
        size = sample.size
        coordinates: Coordinates = np.eye(3)
        for position in stage.geometry:
            with _fields_on(sample.image.device):
                step, new_size = placed(transforms[position], size, transforms[position].draw(source))
            coordinates, size = compose(step, coordinates, new_size), new_size
        if stage.geometry:
            sample = _read_sample(sample, coordinates, size)
        if stage.values is not None:
            transform = transforms[stage.values]
            params = [transform.draw(source)]
            planes = torch.stack([sample.labels, *sample.maps.values()])
            images, changed = _changed(transform, sample.image[None], planes[None], params)
            maps = dict(zip(sample.maps, changed[0, 1:], strict=True))
            sample = replace(sample, image=images[0], labels=changed[0, 0], maps=maps)
    return sample


def _read_sample(sample: Sample, coordinates: Coordinates, size: Size) -> Sample:
    planes = torch.stack([sample.labels, *sample.maps.values()])
    images, labels = read(Pixels.of([sample.image], [planes]), np.zeros(1, np.int64), [coordinates], size)
    maps = dict(zip(sample.maps, labels[0, 1:], strict=True))
    return replace(sample, image=images[0], labels=labels[0, 0], maps=maps)


def grids(transforms: Transforms, size: Size) -> list[Size]:
    """The sizes of a whole image before the first transform and after each."""
    # Transforms of whole images are deterministic, so that `draw` gives what `whole` was given.
    source, sizes = generator(0, "whole image"), [size]
    for transform in transforms:
        sizes.append(placed(transform, sizes[-1], transform.draw(source))[1])
    return sizes


def restore(transforms: Transforms, logits: Tensor, size: Size) -> Tensor:
    """Logits (K, H', W') of a transformed image back on the original grid (K, H, W)."""
    return restore_pieces(transforms, Pieces.of(logits), size).whole


def restore_pieces(transforms: Transforms, logits: Pieces, size: Size) -> Pieces:
    """`restore` for logits of which only pieces are in memory."""
    sizes = grids(transforms, size)
    for transform, before in zip(reversed(transforms), reversed(sizes[:-1]), strict=True):
        logits = transform.restore(logits, before)
    return logits


def fitted(transforms: Transforms, images: Callable[[], Iterable[Tensor]]) -> tuple[BasicTransform2D, ...]:
    """The transforms with the fields that `fit` gives, each fitted to images that went through those before it.

    `images` is called once for every transform that has `fit`, as nothing transformed is kept.
    """
    ready: tuple[BasicTransform2D, ...] = ()
    for transform in transforms:
        if transform.has("fit"):
            values = transform.fit(_transformed(ready, image) for image in images())
            transform = replace(transform, **values) if values else transform  # type: ignore[type-var]
        ready = (*ready, transform)
    return ready


def _transformed(transforms: Transforms, image: Tensor) -> Tensor:
    labels = torch.zeros(image.shape[-2:], dtype=torch.int64)
    return whole(transforms, Sample(image, labels, name="")).image


def readings(transforms: Transforms, side: int, params: list[list[Any]], device: torch.device) -> list[Reading]:
    """The reading of every stage, from the first on, for patches of a side whose random variables are `params`.

    All patches of a stage have one size, which suffices for each of them: patches of one batch that are cut in several
    calls must share the readings of the whole batch, or their last bits would depend on how the batch was divided.
    """
    plan = _planned(transforms)
    steps: list[Reading] = []
    # From the last stage to the first: how much a stage has to write is known from what the next one reads. The first
    # reads the image itself, which need not be made larger.
    size = (side, side)
    for stage in reversed(plan):
        margin = 0 if stage.values is None else transforms[stage.values].margin_px
        size = size[0] + 2 * margin, size[1] + 2 * margin
        coordinates: Batched | None = _centred_together(stage, transforms, params, size, (side, side), device)
        if coordinates is None:
            with _fields_on(device):
                coordinates = [_centred(stage, transforms, given, size, (side, side)) for given in params]
        steps.insert(0, (coordinates, size))
        size = _reach(coordinates, size) if stage is not plan[0] else size
    return steps


def part_of(steps: list[Reading], places: list[int]) -> list[Reading]:
    """The readings of some patches of a batch, in the size that the whole batch has."""
    return [
        (where.part(places) if isinstance(where, Stacked) else [where[index] for index in places], size)
        for where, size in steps
    ]


def _planned(transforms: Transforms) -> list[Stage]:
    return stages(transforms) or [Stage((), None)]


def patches(
    pixels: Pixels,
    images: np.ndarray,
    corners: np.ndarray,
    side: int,
    transforms: Transforms,
    params: list[list[Any]],
) -> tuple[Tensor, Tensor]:
    """Augmented patches (B, C, side, side) and their labels (B, side, side) int64, as `cut` gives them."""
    values, labels, _ = cut(pixels, images, corners, side, transforms, params)
    return values, labels[:, 0].long()


def cut(
    pixels: Pixels,
    images: np.ndarray,
    corners: np.ndarray,
    side: int,
    transforms: Transforms,
    params: list[list[Any]],
    steps: list[Reading] | None = None,
    soft: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Augmented patches (B, C, side, side), label planes (B, L, side, side) and soft planes, at `corners` (B, 2).

    `params[b]` holds the random variables of patch b, one for each transform. Geometry turns about the patch's centre
    and reads the image's own pixels beyond the patch. `steps` are the `readings` of these patches where they are part
    of a larger batch. The last `soft` channels of `pixels` are target planes (B, soft, side, side): geometry
    interpolates them like the image, `labels` changes them like labels, and no `image` hook is given them.
    """
    plan = _planned(transforms)
    steps = steps or readings(transforms, side, params, pixels.values.device)
    values, labels = _read_patches(pixels, images, steps[0], corners + (side - 1) / 2)
    for stage, step in zip(plan, steps, strict=True):
        if stage.geometry and stage is not plan[0]:
            stacked, centre = Pixels.stacked(values, labels), (np.array(values.shape[-2:]) - 1) / 2
            values, labels = _read_patches(stacked, np.arange(len(images)), step, np.tile(centre, (len(images), 1)))
        if stage.values is not None:
            values, labels = _changed(
                transforms[stage.values], values, labels, [one[stage.values] for one in params], soft
            )
            # Within its margin a neighbourhood operation met the edge of what was read, not of the image.
            values, labels = _without_margin(transforms[stage.values].margin_px, values, labels)
    channels = values.shape[1] - soft
    return values[:, :channels], labels, values[:, channels:]


def _fields_on(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which `geometry` makes fields on the device; nothing on a CPU, where entering it costs time."""
    return nullcontext() if device.type == "cpu" else device


def _read_patches(pixels: Pixels, images: np.ndarray, step: Reading, centres: np.ndarray) -> tuple[Tensor, Tensor]:
    """Values (B, C, h, w) and label planes (B, L, h, w) of patches whose centres are at (B, 2) in their images."""
    coordinates, size = step
    if isinstance(coordinates, Stacked):
        return read(pixels, images, _placed_together(coordinates, size, translations(centres)), size)
    placed = [_placed(one, size, centre) for one, centre in zip(coordinates, centres, strict=True)]
    return read(pixels, images, placed, size)


def _without_margin(margin: int, values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    kept = slice(margin, -margin or None)
    return values[..., kept, kept], labels[..., kept, kept]


def _centred(stage: Stage, transforms: Transforms, params: list[Any], size: Size, patch: Size) -> Coordinates:
    """The composed geometry of a stage for one patch, in coordinates counted from the centres of output and input.

    It is composed from the last transform to the first, as each is asked for the pixels that those after it read. A
    transform counts pixels from the corner of what it is given; its input and output are moved so that their centres
    are at 0, because the corner depends on how far the other patches of the batch read, and the centre does not. A
    field cannot be moved like a matrix: it is interpolated where the geometry composed so far leads.
    """
    composed: Coordinates = np.eye(3)
    for position in reversed(stage.geometry):
        reach = _reach([composed], size) if position != stage.geometry[-1] else size
        step = _step(transforms[position], params[position], reach, patch)
        if isinstance(step, np.ndarray):
            composed = compose(composed, step, size)
        else:
            inward = translation(*((n - 1) / 2 for n in reach))
            placed = compose(_placed(composed, size, np.zeros(2)), inward, size)
            composed = Followed.by_nothing(_from_field(compose(placed, step, size), reach))
    return composed


def _step(transform: BasicTransform2D, params: Any, reach: Size, patch: Size) -> np.ndarray | Tensor:
    """A transform's field (2, H, W) for an input of size `reach`, or its matrix, counted from the centres."""
    step, source, out = _asked(transform, params, reach, patch)
    return step if isinstance(step, Tensor) else _from_centres(step[None], [source], [out])[0]


def _asked(
    transform: BasicTransform2D, params: Any, reach: Size, patch: Size
) -> tuple[np.ndarray | Tensor, Size, Size]:
    """A transform's geometry, and the sizes of its input and its output."""
    step, out = placed(transform, reach, params)
    if out == reach:
        return step, reach, out
    # How coarse pixels lie about the centre depends on the input's size: on its remainder, if every n-th is kept. So it
    # has to be the patch's own size, not `reach`, which the other patches of the batch widen.
    step, out = placed(transform, patch, params)
    return step, patch, out


def _from_centres(steps: np.ndarray, sources: Sequence[Size], outs: Sequence[Size]) -> np.ndarray:
    """Matrices (B, 3, 3) on pixels counted from the first one, turned into matrices counted from the centres."""
    outward, inward = translations((1 - np.array(sources)) / 2), translations((np.array(outs) - 1) / 2)
    return np.asarray(outward @ steps @ inward)


def _from_field(where: Coordinates, size: Size) -> Tensor:
    assert isinstance(where, Tensor)
    return where - where.new_tensor([(n - 1) / 2 for n in size])[:, None, None]


def _placed(coordinates: Coordinates, size: Size, centre: np.ndarray) -> Coordinates:
    """Centred coordinates as ones from the first pixel of the output (`size`) to an input centred at `centre`."""
    shift = translation(*centre)
    if isinstance(coordinates, np.ndarray):
        return np.asarray(shift @ coordinates @ translation(*(-(n - 1) / 2 for n in size)))
    return compose(coordinates, shift, size)


def _centred_together(
    stage: Stage, transforms: Transforms, params: list[list[Any]], size: Size, patch: Size, device: torch.device
) -> Stacked | None:
    """`_centred` for a batch, in few calls; None if a field has to be made patch by patch, as always on a CPU.

    A GPU is not waited for: the fields of all patches have the size of the widest, and how far they lead is bounded by
    what their transforms say, not measured.
    """
    composed = Stacked(identities(len(params)))
    for position in reversed(stage.geometry):
        transform, given = transforms[position], [one[position] for one in params]
        reach = _reach(composed, size) if position != stage.geometry[-1] else size
        if not transform.has("shifts"):
            asked = []
            with _fields_on(device):
                for one in given:
                    asked.append(_asked(transform, one, reach, patch))
                    if isinstance(asked[-1][0], Tensor):
                        return None
            made, sources, outs = zip(*asked, strict=True)
            steps = _from_centres(np.stack(made), sources, outs)
        elif device.type != "cpu" and (bent := transform.shifts(reach, given, device)) is not None:
            middle = translation(*((n - 1) / 2 for n in reach))
            composed = compose_together(_placed_together(composed, size, middle), *bent, size)
            # The field leads to pixels counted from the first one; this counts them from the centre again.
            steps = np.linalg.inv(middle)
        else:
            return None
        composed = replace(composed, matrices=steps @ composed.matrices)
    return composed


def _placed_together(coordinates: Stacked, size: Size, shifts: np.ndarray) -> Stacked:
    """`_placed` for a batch whose centres are moved by matrices (B, 3, 3).

    A field is there for pixels already, so that only what it leads to has to be moved.
    """
    matrices = shifts @ coordinates.matrices
    if coordinates.field is None:
        matrices = matrices @ translation(*(-(n - 1) / 2 for n in size))
    return replace(coordinates, matrices=matrices)


def _reach(coordinates: Batched, size: Size) -> Size:
    """The size, about the same centre, that holds every pixel a batch reads.

    It has the parity of `size`: otherwise the centre would move by half a pixel, and noise, whose numbers are counted
    from the centre, would be another.
    """
    if isinstance(coordinates, Stacked):
        half = np.abs(extents(_placed_together(coordinates, size, np.eye(3)), size)).max(axis=(0, 2))
    else:
        half = np.max([_half_extent(field, size) for field in coordinates], axis=0)
    # Less than 1e-6 of a pixel is rounding of composed matrices, and would cost two more rows.
    height, width = (n + 2 * math.ceil(h - (n - 1) / 2 - 1e-6) for n, h in zip(size, half, strict=True))
    return max(height, 1), max(width, 1)


def _half_extent(coordinates: Coordinates, size: Size) -> np.ndarray:
    if isinstance(coordinates, np.ndarray):
        return np.asarray(np.abs(coordinates[:2, :2]) @ ((np.array(size) - 1) / 2) + np.abs(coordinates[:2, 2]))
    return np.asarray(np.abs(extent(coordinates, size)).max(axis=1))


def _changed(
    transform: BasicTransform2D, values: Tensor, labels: Tensor, params: list[Any], soft: int = 0
) -> tuple[Tensor, Tensor]:
    """Values (B, C, h, w) and label planes (B, L, h, w) after a transform's hooks.

    The last `soft` channels are targets: they go through `labels`, and past `image`.
    """
    image = values[:, : values.shape[1] - soft] if soft else values
    if transform.has("statistics"):
        params = [transform.statistics([one]) for one in image]
    given, planes = image, list[Tensor]()
    if transform.has("labels"):
        planes = [labels.long(), values[:, values.shape[1] - soft :]][: 2 if soft else 1]
    image, moved = transform.batch_with_labels(image, planes, params)
    image = checked(transform, image, given, "batch")
    labels = moved[0] if moved else labels
    if soft:
        image = torch.cat([image, moved[1] if moved else values[:, values.shape[1] - soft :]], dim=1)
    return image, labels
