"""Whether masks lie where their images show outlines: shifted, mirrored or turned ones do not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from yeastexp.inspection.preflight.finding import Finding
from yeastexp.sample import Sample
from yeastexp.system.formatting import format_count

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.generic]

REACH_PX = 8
"""How far masks are shifted to look for a better place."""

AGREEING = 0.75
"""The share of the images in which the better place has to be better."""

LARGEST_SIDE = 1024
"""Pixels of the middle of an image that is looked at."""

IMAGES = 32
"""That are looked at, spread over all."""

LEAST_SHIFT_PX = 2.0
"""Outlines are drawn a pixel to one side in good data too (measured: 1 of 81 × 81 pixels of traps)."""

GAIN = 0.1
"""By which share of itself the best correlation has to be above that in place: measured shifts of 3 px reach it."""

LEAST_CORRELATION = 0.1
"""Of outlines with edges, for another place to be believed; measured in place: means of 0.22 to 0.65 of a data set."""

UNLIKE = 0.05
"""Correlation below which a mask seems to be of another image; measured in place: 0.17 at the least of one image."""

TURNS: dict[str, Callable[[Labels], Labels]] = {
    "flipped upside down": lambda labels: labels[::-1],
    "mirrored left to right": lambda labels: labels[:, ::-1],
    "turned by 180°": lambda labels: labels[::-1, ::-1],
    "transposed (rows for columns)": lambda labels: labels.T,
}


@dataclass(frozen=True)
class Placement:
    """How outlines of a mask correlate with the edges of its image, by shift of the mask, (2 · REACH_PX + 1) a side.

    `turned` has the best within a few pixels for the mask in place and for each way in which it may be turned.
    """

    name: str
    by_shift: Array
    turned: dict[str, float]


def placement(sample: Sample) -> Placement | None:
    """Where a mask fits its image; nothing where it has no outline, or the image is too small to shift it."""
    image, labels = _middle(sample.image.mean(dim=0).double().numpy()), _middle(sample.labels.numpy())
    outlines = _outlines(labels)
    if min(labels.shape) < 4 * REACH_PX or not outlines[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX].any():
        return None
    edges = _edges(image)
    by_shift = _correlations(edges, outlines)
    turned = {"": _near(by_shift)}
    for how, turn in TURNS.items():
        if (other := turn(labels)).shape == labels.shape:
            turned[how] = _near(_correlations(edges, _outlines(other)))
    return Placement(sample.name, by_shift, turned)


def _middle(plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    first = [max(0, (length - LARGEST_SIDE) // 2) for length in plane.shape]
    return plane[first[0] : first[0] + LARGEST_SIDE, first[1] : first[1] + LARGEST_SIDE]


def _outlines(labels: npt.NDArray[np.generic]) -> Array:
    """1 on both sides of every change of label."""
    found = np.zeros(labels.shape)
    for axis in (0, 1):
        changes = np.diff(labels.astype(np.int64), axis=axis) != 0
        found += np.pad(changes, [(0, int(axis == a)) for a in (0, 1)])
        found += np.pad(changes, [(int(axis == a), 0) for a in (0, 1)])
    return np.minimum(found, 1.0)


def _edges(image: npt.NDArray[np.generic]) -> Array:
    """The steepness of the image at the scale of a pixel, the steepest cut off, so that no speck decides."""
    steps = [ndimage.gaussian_filter(image.astype(np.float64), 1.0, order=order) for order in ((1, 0), (0, 1))]
    steep = np.hypot(*steps)
    return np.asarray(ndimage.gaussian_filter(np.minimum(steep, np.quantile(steep, 0.98)), 1.0))


def _correlations(edges: Array, outlines: Array) -> Array:
    """Pearson's, of the inner edges with the outlines moved by each shift."""
    inner = edges[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX]
    centred = inner - inner.mean()
    length = np.sqrt((centred**2).sum())
    both = signal.fftconvolve(outlines, centred[::-1, ::-1], mode="valid")[::-1, ::-1]
    share = _means(outlines, inner.shape)[::-1, ::-1]
    spread = np.sqrt(np.maximum(share * (1 - share), 0) * inner.size)
    return np.asarray(np.divide(both, spread * length, out=np.zeros_like(both), where=spread * length > 0))


def _means(plane: Array, size: tuple[int, ...]) -> Array:
    """The mean of every part of a plane that has a size."""
    sums = np.pad(plane, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    height, width = size
    parts = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return np.asarray(parts / (height * width))


def _near(by_shift: Array) -> float:
    return float(by_shift[REACH_PX - 2 : REACH_PX + 3, REACH_PX - 2 : REACH_PX + 3].max())


def findings(found: Sequence[Placement]) -> list[Finding]:
    """What the masks of several images together say; one alone is too few to tell."""
    if len(found) < 2:
        return []
    rules = _turned, _shifted, _unlike
    return list(itertools.islice((finding for rule in rules if (finding := rule(found))), 1))


WHY = "A model learns outlines beside the real ones, and its scores are measured against them"


def _turned(found: Sequence[Placement]) -> Finding | None:
    """Turned masks have to fit at least twice as well as those in place."""
    means = {how: float(np.mean([one.turned.get(how, 0.0) for one in found])) for how in ("", *TURNS)}
    how = max(means, key=lambda one: means[one])
    if not how or means[how] < LEAST_CORRELATION or means[""] > means[how] / 2:
        return None
    what = (
        f"masks fit their images better {how}: {means[how]:.2f} against {means['']:.2f}, the mean correlation of "
        f"outlines with edges in {format_count(len(found), 'image')} looked at"
    )
    remedy = "look at both in 'preview'; if the masks are off, turn them back and pack again"
    return Finding("warning", "masks turned", what, WHY, remedy)


def _shifted(found: Sequence[Placement]) -> Finding | None:
    mean = np.mean([one.by_shift for one in found], axis=0)
    y, x = (int(index) - REACH_PX for index in np.unravel_index(int(mean.argmax()), mean.shape))
    best, here = float(mean.max()), float(mean[REACH_PX, REACH_PX])
    agreeing = sum(bool(one.by_shift[REACH_PX + y, REACH_PX + x] > one.by_shift[REACH_PX, REACH_PX]) for one in found)
    if np.hypot(y, x) < LEAST_SHIFT_PX or best < LEAST_CORRELATION or best - here < GAIN * best:
        return None
    if agreeing < AGREEING * len(found):
        return None
    what = (
        f"masks fit their images better when moved by {_moved(y, 'down', 'up')}{' and ' if y and x else ''}"
        f"{_moved(x, 'right', 'left')}: {best:.2f} against {here:.2f}, the mean correlation of outlines with edges; "
        f"better in {agreeing} of {format_count(len(found), 'image')} looked at"
    )
    remedy = "look at both in 'preview'; if the masks are off, move them back and pack again"
    return Finding("warning", "masks shifted", what, WHY, remedy)


def _unlike(found: Sequence[Placement]) -> Finding | None:
    """Masks that have nothing to do with their images."""
    odd = tuple(one.name for one in found if one.turned[""] < UNLIKE)
    if not odd:
        return None
    what = (
        f"in {len(odd)} of {format_count(len(found), 'image')} looked at, outlines of the mask hardly lie on edges of "
        f"the image (correlation below {UNLIKE}; 0.2 to 0.7 is usual)"
    )
    remedy = "look at them in 'preview': were they paired as they belong, or does noise hide the cells?"
    return Finding("warning", "masks unlike images", what, "A mask of another image teaches nonsense", remedy, odd)


def _moved(pixels: int, on: str, back: str) -> str:
    return f"{abs(pixels)} px {on if pixels > 0 else back}" if pixels else ""
