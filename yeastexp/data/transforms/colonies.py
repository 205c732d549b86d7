"""Scenes composed of single cells that were cut out of the training images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from yeastexp.sample import IGNORE, Sample, compacted

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int32]
EIGHT = np.ones((3, 3), bool)

HALO_PX = 12
"""Width of the rim that is cut out with a cell, for the light that falls around it."""

FREE = 0.55
"""Smallest share of its outline at which a cell touches no other one, for it to be cut out."""

MOST_CUTOUTS = 600
MOST_IMAGES, MOST_OF_IMAGE = 60, 50
"""Largest numbers of images that cells are cut from, and of cells of each: memory does not grow with the data."""

OVERLAP = 0.04
"""Largest share of a cell's area that may fall on cells pasted before."""

NEIGHBOURS_HALO = 0.25
"""Share of its neighbours' light that is added inside a cell."""

SMALLEST_PX = 12
"""Smallest area, in pixels, of a cell that is pasted."""

STRETCH, BUD_SCALE = 0.12, (0.3, 0.65)
"""Largest relative stretch of a cell along one axis, and the range of a bud's size relative to other cells."""

DIRECTIONS = 8
"""Number of directions that are tried for a cell to approach the centre of its colony from."""

MISSES = 6
"""Number of cells that may be too small, or fall outside the scene, before their colony counts as complete."""

SMOOTH_PX = 51
"""Side of the box filter that is applied twice to a background to get its level."""

BACKGROUNDS = 12
"""Number of backgrounds that all scenes are composed on, flipped and transposed."""


@dataclass(frozen=True)
class Cutout:
    """A cell with its surroundings: what it adds to the background (C, h, w), its mask (h, w), and its class.

    `fade` (h, w) is the share of the excess that is added outside the mask: 1 beside it, 0 from `HALO_PX` on.
    """

    excess: Image
    mask: Mask
    fade: Image
    label: int


def cell_ids(sample: Sample) -> Ids:
    """Ids of the cells of an image (H, W): its map `instances`, or connected regions of one class."""
    if "instances" in sample.maps:
        return compacted(sample.maps["instances"].numpy())[0].astype(np.int32)
    labels, ids, count = sample.labels.numpy(), np.zeros(sample.size, np.int32), 0
    for label in range(1, int(labels.max(initial=0)) + 1):
        regions, more = ndimage.label(labels == label)
        ids = np.where(regions > 0, regions + count, ids).astype(np.int32)
        count += more
    return ids


def cut_out(samples: Sequence[Sample]) -> list[Cutout]:
    """The cells with free surroundings, at most `MOST_CUTOUTS`; the freest tenth if hardly any is free."""
    # Back in the order of the images after the selection, so that every n-th is spread over all of them.
    spread = samples_spread(samples, MOST_IMAGES)
    cutouts = [(free, cutout) for sample in spread for free, cutout in _freest(sample)]
    freest_first = sorted(range(len(cutouts)), key=lambda place: -cutouts[place][0])
    enough = max(sum(free >= FREE for free, _ in cutouts), min(len(cutouts), 1 + len(cutouts) // 10))
    chosen = sorted(freest_first[:enough])
    return [cutouts[place][1] for place in chosen[:: -(-len(chosen) // MOST_CUTOUTS) or 1]]


def holds_whole_cell(sample: Sample) -> bool:
    """Whether an image has a cell that can be cut out."""
    return any(True for _ in _all_cutouts(sample))


def samples_spread(samples: Sequence[Sample], most: int) -> Iterator[Sample]:
    """At most `most` of the samples, evenly spread over the list; the others are not read."""
    return (samples[index] for index in range(0, len(samples), -(-len(samples) // most) or 1))


def _freest(sample: Sample) -> list[tuple[float, Cutout]]:
    """The freest cells of an image, at most `MOST_OF_IMAGE`, each with the share of its outline that is free."""
    return sorted(_all_cutouts(sample), key=lambda entry: -entry[0])[:MOST_OF_IMAGE]


def _all_cutouts(sample: Sample) -> Iterator[tuple[float, Cutout]]:
    """Each whole cell, and the share of its outline that is free."""
    ids, image = cell_ids(sample), sample.image.numpy()
    unknown = sample.labels.numpy() == IGNORE
    for number, box in enumerate(ndimage.find_objects(ids), start=1):
        if box is None or any(
            part.start < 3 or part.stop > length - 3 for part, length in zip(box, ids.shape, strict=True)
        ):
            continue  # no such cell, or one that the border cuts
        around = tuple(slice(max(part.start - HALO_PX, 0), part.stop + HALO_PX) for part in box)
        mask = ids[around] == number
        others = (ids[around] > 0) & ~mask | unknown[around]
        ring = ndimage.binary_dilation(mask, EIGHT, iterations=2) & ~mask
        surroundings = ~ndimage.binary_dilation(mask | others, EIGHT, iterations=3)
        # The light around cells must not count as background, unless no pixel is free of it.
        background = surroundings if surroundings.any() else ~mask & ~others
        if not background.any() or not mask.any():
            continue
        pixels = image[(slice(None), *around)]
        # A median, so that dirt or an unlabelled cell among the background does not shift it.
        excess = pixels - np.median(pixels[:, background], axis=1)[:, None, None]
        away = ndimage.distance_transform_edt(~mask)
        fade = np.where(mask, 0, np.clip((HALO_PX - away) / (HALO_PX - 3), 0, 1)).astype(np.float32)
        _fill(excess, away, others)
        label = int(np.bincount(sample.labels.numpy()[around][mask].clip(0)).argmax())
        # Where labels end beside a cell, they may have cut it: it is taken if there is hardly any other one.
        free = 0.0 if unknown[around][ring].any() else 1 - float(others[ring].mean())
        yield free, Cutout(excess, mask, fade, label)


def _fill(excess: Image, away: npt.NDArray[np.float64], others: Mask) -> None:
    """Replace the excess on other cells by the mean of the known pixels at the same distance from the outline.

    The light around a cell depends mostly on the distance; without this, a cutout would carry pieces of its neighbours.
    Changes `excess` (C, h, w) in place; it is 0 where no pixel at that distance is known.
    """
    distance = np.rint(away).astype(int)
    known = ~others & (distance > 0)
    count = np.bincount(distance[known], minlength=distance.max() + 1)
    for plane in excess:
        total = np.bincount(distance[known], plane[known], minlength=len(count))
        plane[others] = (total / np.maximum(count, 1))[distance[others]]


def backgrounds(samples: Sequence[Sample], side: int, source: np.random.Generator) -> list[tuple[Image, Image]]:
    """Pieces (C, h, w) of at most `side` pixels from which the cells are taken away, each with its level (C, h, w)."""
    chosen = source.permutation(len(samples))[:BACKGROUNDS]
    few = [(sample, cell_ids(sample) > 0) for sample in map(samples.__getitem__, chosen.tolist())]
    pieces = [_background(few, side, source) for _ in range(BACKGROUNDS)]
    return [(piece, _levelled(piece, np.ones(piece.shape[1:], bool))) for piece in pieces]


def _background(samples: Sequence[tuple[Sample, Mask]], side: int, source: np.random.Generator) -> Image:
    """A piece with few cells, which are covered by background from other pieces.

    Only the detail of the other piece is copied, onto the level of this one: a patch of another brightness would show.
    Where all pieces have cells, the plain level remains.
    """
    pieces = [_piece(*samples[int(source.integers(len(samples)))], side, source) for _ in range(10)]
    size = min(piece[0].shape[-2:] for piece in pieces)
    pieces = sorted((p for p in pieces if p[0].shape[-2:] == size), key=lambda piece: float(piece[1].mean()))
    image, occupied = pieces[0][0].copy(), pieces[0][1].copy()
    level = _levelled(image, ~occupied)
    for other, taken in pieces[1:]:
        usable = occupied & ~taken
        image[:, usable] = (level + other - _levelled(other, ~taken))[:, usable]
        occupied &= taken
    image[:, occupied] = level[:, occupied]
    return image


def _piece(sample: Sample, cells: Mask, side: int, source: np.random.Generator) -> tuple[Image, Mask]:
    """A random piece (C, h, w) of an image, and where cells, the light around them or unlabelled pixels are (h, w)."""
    height, width = (min(side, length) for length in sample.size)
    top, left = (
        int(source.integers(length - part + 1)) for length, part in zip(sample.size, (height, width), strict=True)
    )
    window = slice(top, top + height), slice(left, left + width)
    occupied = cells[window] | (sample.labels[window].numpy() == IGNORE)
    occupied = ndimage.binary_dilation(occupied, EIGHT, iterations=HALO_PX // 2)
    return sample.image[(slice(None), *window)].numpy(), occupied


def _levelled(image: Image, known: Mask) -> Image:
    """The level of an image (C, h, w): smoothed, from its known pixels (h, w) alone.

    A normalised convolution: the smoothed values divided by the smoothed mask. The mean is taken off first, so that far
    from every known pixel, where both are 0, the mean remains. Two box filters come close to a Gaussian and cost the
    same for any width.
    """
    mean = image[:, known].mean(axis=1)[:, None, None] if known.any() else image.mean(axis=(1, 2), keepdims=True)
    weighted = np.concatenate([np.where(known, image - mean, 0), known[None]]).astype(np.float32)
    for _ in range(2):
        weighted = ndimage.uniform_filter(weighted, (0, SMOOTH_PX, SMOOTH_PX))
    return np.asarray(mean + weighted[:-1] / (weighted[-1] + 1e-6), np.float32)


@dataclass(frozen=True)
class Colonies:
    """How cells are varied and packed into scenes.

    A scene's cells are scaled by a factor within `scale`, each by up to e^±`spread` more, and with probability `buds`
    by a factor within `BUD_SCALE`.
    """

    scale: tuple[float, float]
    spread: float
    buds: float

    def scene(
        self, cutouts: Sequence[Cutout], ground: tuple[Image, Image], name: str, source: np.random.Generator
    ) -> Sample:
        """A scene with one to four colonies, as large as its background; `ground` is that background and its level."""
        # Both are flipped together, as one image.
        background, level = np.split(_reoriented(np.concatenate(ground), source), 2)
        size = background.shape[1:]
        excess, light = np.zeros_like(background), np.zeros_like(background)
        ids, labels = np.zeros(size, np.int32), np.zeros(size, np.int64)
        scale = float(np.exp(source.uniform(*np.log(self.scale))))
        room, number = source.uniform(0.15, 0.75) * math.prod(size), 0
        for _ in range(int(source.integers(1, 5))):
            centre = source.uniform(0.1, 0.9, 2) * size
            # Each turn either uses up some of the area or is a miss, so the loop ends however small the cells are.
            share, misses = room * source.uniform(0.2, 1), 0
            while share > 0 and misses < MISSES:
                cell = self._varied(cutouts[int(source.integers(len(cutouts)))], scale, source)
                corner = _landing(cell.mask, ids > 0, centre, source) if cell else None
                if cell is None or corner is None:
                    misses += 1
                    continue
                share -= float(cell.mask.sum())
                number += 1
                _paste(cell, corner, number, excess, light, ids, labels)
        # Inside a cell the level takes the place of the background, whose texture would shine through the cell.
        inside = ids > 0
        image = np.where(inside, level + excess + NEIGHBOURS_HALO * light, background + light)
        tensor = torch.from_numpy(image.astype(np.float32))
        return Sample(
            tensor, torch.from_numpy(labels), name, maps={"instances": torch.from_numpy(ids.astype(np.int64))}
        )

    def _varied(self, cutout: Cutout, scale: float, source: np.random.Generator) -> Cutout | None:
        """The cell rotated, flipped, stretched and scaled; None if it would be smaller than `SMALLEST_PX`."""
        scale *= float(np.exp(source.uniform(-self.spread, self.spread)))
        if source.random() < self.buds:
            scale *= source.uniform(*BUD_SCALE)
        turn, mirrored = source.uniform(0, 2 * math.pi), source.choice([-1, 1])
        sides = scale * np.array([1 + source.uniform(-STRETCH, STRETCH), 1]) * [1, mirrored]
        if cutout.mask.sum() * scale**2 < SMALLEST_PX:
            return None
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        # scipy wants the map from output to input. Both centres coincide, in a box that holds the rotated cutout.
        matrix = np.linalg.inv(rotation @ np.diag(sides))
        before = np.array(cutout.mask.shape)
        after = np.ceil(np.abs(rotation @ np.diag(sides)) @ before).astype(int)
        shift = (before - 1) / 2 - matrix @ ((after - 1) / 2)
        # Linear interpolation alone would skip pixels of a cell that is made smaller.
        blur = max(0.0, 0.5 * math.log2(1 / scale)) if scale < 1 else 0.0

        def moved(plane: Image) -> Image:
            smooth = ndimage.gaussian_filter(plane, blur) if blur else plane
            return np.asarray(ndimage.affine_transform(smooth, matrix, shift, tuple(after), np.float32, order=1))

        mask = moved(cutout.mask.astype(np.float32)) > 0.5
        if mask.sum() < SMALLEST_PX:
            return None
        # Interpolation draws the fade into the mask, where the excess itself is pasted and no light may be added.
        excess = np.stack([moved(plane) for plane in cutout.excess])
        return Cutout(excess, mask, np.where(mask, 0, moved(cutout.fade)).astype(np.float32), cutout.label)


def _reoriented(image: Image, source: np.random.Generator) -> Image:
    """The image (C, h, w) flipped and, if it is square, transposed at random."""
    turned = image.transpose(0, 2, 1) if source.random() < 0.5 and image.shape[1] == image.shape[2] else image
    return turned[:, :: int(source.choice([-1, 1])), :: int(source.choice([-1, 1]))].copy()


def _landing(
    mask: Mask, occupied: Mask, centre: npt.NDArray[np.float64], source: np.random.Generator
) -> tuple[int, int] | None:
    """The corner of a cell that is pushed towards `centre` until it touches other cells, from the best direction.

    Returns None if the middle of its mask would lie outside the scene, or if it is nowhere free. Bisection finds a
    place where a free position follows a blocked one; with a gap between other cells, that need not be the one nearest
    to the centre.
    """
    allowed = OVERLAP * mask.sum()
    reach = float(np.hypot(*occupied.shape))
    best: tuple[float, tuple[int, int]] | None = None
    for angle in source.uniform(0, 2 * math.pi, DIRECTIONS):
        direction = np.array([math.sin(angle), math.cos(angle)])
        low, high = 0.0, best[0] if best else reach
        if _overlap(mask, occupied, _corner(centre + (high - 2) * direction, mask)) > allowed:
            continue  # no nearer than the best direction so far: the bisection is saved
        while high - low > 1:
            middle = (low + high) / 2
            if _overlap(mask, occupied, _corner(centre + middle * direction, mask)) <= allowed:
                high = middle
            else:
                low = middle
        best = high, _corner(centre + high * direction, mask)
    if best is None:
        return None  # larger than the scene: even beside it, the cell would cover others
    top, left = best[1]
    inside = 0 <= top + mask.shape[0] // 2 < occupied.shape[0] and 0 <= left + mask.shape[1] // 2 < occupied.shape[1]
    return (top, left) if inside else None


def _corner(middle: npt.NDArray[np.float64], mask: Mask) -> tuple[int, int]:
    return round(middle[0] - mask.shape[0] / 2), round(middle[1] - mask.shape[1] / 2)


def _windows(
    corner: tuple[int, int], part: tuple[int, ...], whole: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The slices of `whole` that a part with this corner covers, and the slices of the part that lie within it."""
    inner, outer = [], []
    for start, length, total in zip(corner, part, whole, strict=True):
        first, last = max(start, 0), max(min(start + length, total), max(start, 0))
        outer.append(slice(first, last))
        inner.append(slice(first - start, last - start))
    return tuple(outer), tuple(inner)


def _overlap(mask: Mask, occupied: Mask, corner: tuple[int, int]) -> int:
    outer, inner = _windows(corner, mask.shape, occupied.shape)
    return int(np.count_nonzero(occupied[outer] & mask[inner]))


def _paste(
    cell: Cutout,
    corner: tuple[int, int],
    number: int,
    excess: Image,
    light: Image,
    ids: Ids,
    labels: npt.NDArray[np.int64],
) -> None:
    """Paste a cell in place: its light everywhere around it, its pixels where no cell is yet."""
    outer, inner = _windows(corner, cell.mask.shape, ids.shape)
    mask, pixels = cell.mask[inner], cell.excess[(slice(None), *inner)]
    light[(slice(None), *outer)] += cell.fade[inner] * pixels
    free = mask & (ids[outer] == 0)
    ids[outer][free] = number
    labels[outer][free] = cell.label
    excess[(slice(None), *outer)][:, free] = pixels[:, free]
