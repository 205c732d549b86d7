"""A check that masks are registered with their images: outlines should lie on edges, not beside them or mirrored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from yeastexp.inspection.preflight.finding import Finding
from yeastexp.sample import Sample, channel_mean
from yeastexp.system.formatting import format_count

Array = npt.NDArray[np.float64]
Plane = npt.NDArray[np.generic]

MAX_SHIFT_PX = 8
"""The largest shift of masks in search of a better registration."""

AGREEMENT = 0.75
"""The share of the images in which a shift has to be better to be reported."""

MAX_SIDE = 1024
"""The side in pixels of the central part of an image that is used."""

MAX_IMAGES = 32
"""The most images that are used, evenly spread over all."""

MIN_SHIFT_PX = 2.0
"""The least shift that is reported: outlines are drawn a pixel to one side in good data too."""

MIN_GAIN = 0.1
"""The gain of correlation, as a share of the best, from which a shift is reported; measured shifts of 3 px reach it."""

MIN_CORRELATION = 0.1
"""The least correlation for another place to be credible; data sets in place were measured to have 0.22 to 0.65."""

MISMATCH = 0.05
"""The correlation below which a mask seems to be of another image; single images in place had at least 0.17."""

FLIPS: dict[str, Callable[[Plane], Plane]] = {
    "flipped vertically": lambda labels: labels[::-1],
    "flipped horizontally": lambda labels: labels[:, ::-1],
    "rotated by 180°": lambda labels: labels[::-1, ::-1],
    "transposed (rows and columns exchanged)": lambda labels: labels.T,
}


@dataclass(frozen=True)
class Registration:
    """The correlation of a mask's outlines with its image's edges, in place, shifted and flipped.

    `by_shift` (2 · MAX_SHIFT_PX + 1 a side) is indexed by the shift down and right, no shift in the middle. `flipped`
    has the best correlation within 2 pixels of it, for the mask as it is ("") and under each flip.
    """

    name: str
    by_shift: Array
    flipped: dict[str, float]


def register(sample: Sample) -> Registration | None:
    """Measure how well a mask fits its image; None if the mask has no outline, or the image is too small to shift."""
    image, labels = _center(channel_mean(sample.image.numpy())), _center(sample.labels.numpy())
    outlines, inner = _outlines(labels), slice(MAX_SHIFT_PX, -MAX_SHIFT_PX)
    if min(labels.shape) < 4 * MAX_SHIFT_PX or not outlines[inner, inner].any():
        return None
    edges = _edges(image)
    by_shift = _correlations(edges, outlines)
    flipped = {"": _near(by_shift)}
    for name, flip in FLIPS.items():
        if (other := flip(labels)).shape == labels.shape:
            flipped[name] = _near(_correlations(edges, _outlines(other)))
    return Registration(sample.name, by_shift, flipped)


def _center(plane: Plane) -> Plane:
    """The central part of an image, at most `MAX_SIDE` a side."""
    first = [max(0, (length - MAX_SIDE) // 2) for length in plane.shape]
    return plane[first[0] : first[0] + MAX_SIDE, first[1] : first[1] + MAX_SIDE]


def _outlines(labels: Plane) -> Array:
    """A map (H, W) that is 1 on both sides of every change of label, else 0."""
    # Both sides: an outline on one side only would lie half a pixel beside the edge, and favour a shift.
    outlines = np.zeros(labels.shape)
    for axis in (0, 1):
        changes = np.diff(labels.astype(np.int64), axis=axis) != 0
        outlines += np.pad(changes, [(0, int(axis == a)) for a in (0, 1)])
        outlines += np.pad(changes, [(int(axis == a), 0) for a in (0, 1)])
    return np.minimum(outlines, 1.0)


def _edges(image: Plane) -> Array:
    """The gradient magnitude at the scale of a pixel, its top 2 % clipped, so that no bright speck dominates."""
    gradients = [ndimage.gaussian_filter(image.astype(np.float64), 1.0, order=order) for order in ((1, 0), (0, 1))]
    magnitude = np.hypot(*gradients)
    return np.asarray(ndimage.gaussian_filter(np.minimum(magnitude, np.quantile(magnitude, 0.98)), 1.0))


def _correlations(edges: Array, outlines: Array) -> Array:
    """Pearson's correlation of the inner part of the edges with the outlines moved by each shift."""
    # The inner part is the same for all shifts: every correlation is of equally many pixels, none of them padded.
    inner = edges[MAX_SHIFT_PX:-MAX_SHIFT_PX, MAX_SHIFT_PX:-MAX_SHIFT_PX]
    centred = inner - inner.mean()
    # A shift of the mask by (y, x) moves the part of it that meets the inner edges by (-y, -x): hence the flips.
    covariance = signal.fftconvolve(outlines, centred[::-1, ::-1], mode="valid")[::-1, ::-1]
    share = _box_means(outlines, inner.shape)[::-1, ::-1]
    # Outlines are 0 or 1, so their variance follows from their mean.
    norm = np.sqrt(np.maximum(share * (1 - share), 0) * inner.size) * np.sqrt((centred**2).sum())
    return np.asarray(np.divide(covariance, norm, out=np.zeros_like(covariance), where=norm > 0))


def _box_means(plane: Array, size: tuple[int, ...]) -> Array:
    """The mean of every box of a size within a plane, from a summed-area table."""
    sums = np.pad(plane, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    height, width = size
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return np.asarray(boxes / (height * width))


def _near(by_shift: Array) -> float:
    """The best correlation within 2 pixels: flips are compared as if outlines were drawn alike on all sides."""
    near = slice(MAX_SHIFT_PX - 2, MAX_SHIFT_PX + 3)
    return float(by_shift[near, near].max())


def findings(registrations: Sequence[Registration]) -> list[Finding]:
    """The finding of the first rule that holds for the masks of several images together; one image is too few."""
    # In this order: flipped masks hardly match in place either, and may fit a little better when shifted.
    if len(registrations) < 2:
        return []
    rules = _flipped, _shifted, _mismatched
    return [finding for rule in rules if (finding := rule(registrations))][:1]


def _misregistered(about: str, what: str) -> Finding:
    why = "The model would learn displaced outlines, and be scored against them"
    return Finding(
        "warning", about, what, why, "compare both in 'preview'; if the masks are wrong, fix and pack them again"
    )


def _flipped(registrations: Sequence[Registration]) -> Finding | None:
    """A finding if masks fit at least twice as well flipped."""
    means = {
        flip: float(np.mean([registration.flipped.get(flip, 0.0) for registration in registrations]))
        for flip in ("", *FLIPS)
    }
    best = max(means, key=lambda flip: means[flip])
    if not best or means[best] < MIN_CORRELATION or means[""] > means[best] / 2:
        return None
    return _misregistered(
        "masks flipped",
        f"masks fit their images better {best}: {means[best]:.2f} against {means['']:.2f}, the mean correlation of "
        f"outlines with edges in {format_count(len(registrations), 'image')} examined",
    )


def _shifted(registrations: Sequence[Registration]) -> Finding | None:
    """A finding if one shift fits all masks better."""
    # The shift is searched for in the mean over images: in a single image noise can move the maximum, but a fault of
    # the annotation tool or of the export moves all masks alike.
    mean = np.mean([registration.by_shift for registration in registrations], axis=0)
    row, column = (int(index) for index in np.unravel_index(int(mean.argmax()), mean.shape))
    y, x = row - MAX_SHIFT_PX, column - MAX_SHIFT_PX
    best, here = float(mean.max()), float(mean[MAX_SHIFT_PX, MAX_SHIFT_PX])
    better = [
        registration.by_shift[row, column] > registration.by_shift[MAX_SHIFT_PX, MAX_SHIFT_PX]
        for registration in registrations
    ]
    if np.hypot(y, x) < MIN_SHIFT_PX or best < MIN_CORRELATION or best - here < MIN_GAIN * best:
        return None
    if sum(better) < AGREEMENT * len(registrations):
        return None
    return _misregistered(
        "masks shifted",
        f"masks fit their images better when moved by {_moved(y, 'down', 'up')}{' and ' if y and x else ''}"
        f"{_moved(x, 'right', 'left')}: {best:.2f} against {here:.2f}, the mean correlation of outlines with edges; "
        f"better in {sum(better)} of {format_count(len(registrations), 'image')} examined",
    )


def _moved(pixels: int, positive: str, negative: str) -> str:
    return f"{abs(pixels)} px {positive if pixels > 0 else negative}" if pixels else ""


def _mismatched(registrations: Sequence[Registration]) -> Finding | None:
    """A finding on masks that fit nothing in their images."""
    names = tuple(registration.name for registration in registrations if registration.flipped[""] < MISMATCH)
    if not names:
        return None
    what = (
        f"in {len(names)} of {format_count(len(registrations), 'image')} examined, outlines of the mask hardly lie on "
        f"edges of the image (correlation below {MISMATCH}; 0.2 to 0.7 is usual)"
    )
    remedy = "compare them in 'preview': were the files paired correctly, or does noise hide the cells?"
    return Finding("warning", "masks do not match images", what, "The mask of another image is noise", remedy, names)
