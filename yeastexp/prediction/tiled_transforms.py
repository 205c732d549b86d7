"""The `[[transform]]` list on an image that is read piece by piece, and logits brought back through it.

The figures of an image (its mean, its percentiles) are taken of all of it first, in passes over bands of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import singledispatch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yeastexp.data.pieces import Pieces, bands, moved
from yeastexp.data.transforms.base import BasicTransform2D
from yeastexp.data.transforms.crop import CERTAIN, Crop
from yeastexp.data.transforms.downscale import Downscale
from yeastexp.data.transforms.percentile import Percentile
from yeastexp.data.transforms.polarity import Polarity
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.randomness import generator

Back = Callable[[Pieces], Pieces]
"""Logits on a transformed image to logits on the image that was transformed."""

AT_ONCE = 1 << 22
"""Pixels that are looked at together where figures are taken."""

PROBE = 96
"""Pixels of a side of the piece on which a transform shows whether it acts locally."""


class LooksAtAll(Exception):
    """A transform needs the whole image at once; the message is its name."""


def seen(image: Pieces, transforms: Sequence[BasicTransform2D]) -> tuple[Pieces, Back]:
    """What a model sees of an image, and the way back; LooksAtAll where that cannot be had in pieces."""
    way: list[Back] = []
    for transform in transforms:
        image, back = in_pieces(transform, image)
        way.append(back)

    def restored(logits: Pieces) -> Pieces:
        for back in reversed(way):
            logits = back(logits)
        return logits

    return image, restored


def _unchanged(logits: Pieces) -> Pieces:
    return logits


@singledispatch
def in_pieces(transform: BasicTransform2D, image: Pieces) -> tuple[Pieces, Back]:
    """A transform of an image in pieces, and the way back; a part of one's own is added by `in_pieces.register`.

    One that is not known passes where it has no figures to fit and moves no pixels, and where on a piece of this image
    it gives, bit by bit, what it gives on a part of that piece, but for its `margin_px`.
    """
    others = ("fit", "geometry", "restore", "labels")
    if transform.whole_images or any(transform.has(hook) for hook in others) or not _acts_locally(transform, image):
        raise LooksAtAll(type(transform).__name__)
    return locally(transform, image), _unchanged


def locally(transform: BasicTransform2D, image: Pieces) -> Pieces:
    """A transform whose values depend on no pixel farther away than its `margin_px`."""
    margin = transform.margin_px

    def cut(rows: slice, columns: slice) -> Tensor:
        wide = [
            slice(max(0, one.start - margin), min(length, one.stop + margin))
            for one, length in zip((rows, columns), image.size, strict=True)
        ]
        values = _values(transform, image.cut(*wide))
        top, left = (one.start - other.start for one, other in zip((rows, columns), wide, strict=True))
        return values[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]

    return Pieces(image.size, cut)


def _values(transform: BasicTransform2D, piece: Tensor) -> Tensor:
    return transform.batch(piece[None], [transform.draw(generator(0, "whole image"))])[0]


def _acts_locally(transform: BasicTransform2D, image: Pieces) -> bool:
    """Whether a piece from the middle gives the same as a part of it."""
    margin = transform.margin_px
    side = 2 * margin + PROBE
    if min(image.size) < side:
        return False
    first = [(length - side) // 2 for length in image.size]
    piece = image.cut(*(slice(one, one + side) for one in first))
    inner = slice(margin + PROBE // 4, margin + PROBE - PROBE // 3)
    outer = slice(inner.start - margin, inner.stop + margin)
    part = _values(transform, piece[:, outer, outer])
    kept = slice(margin, margin + inner.stop - inner.start)
    return torch.equal(_values(transform, piece)[:, inner, inner], part[:, kept, kept])


@in_pieces.register
def _(transform: ZScore, image: Pieces) -> tuple[Pieces, Back]:
    if transform.per == "dataset":
        return locally(transform, image), _unchanged
    mean, deviation = moments(image)

    def cut(rows: slice, columns: slice) -> Tensor:
        return ((image.cut(rows, columns).double() - mean) / max(deviation, 1e-12)).float()

    return Pieces(image.size, cut), _unchanged


@in_pieces.register
def _(transform: Percentile, image: Pieces) -> tuple[Pieces, Back]:
    if transform.per == "dataset":
        return locally(transform, image), _unchanged
    low, high = percentiles(image, [transform.low, transform.high])

    def cut(rows: slice, columns: slice) -> Tensor:
        return ((image.cut(rows, columns).double() - low) / max(high - low, 1e-12)).float()

    return Pieces(image.size, cut), _unchanged


@in_pieces.register
def _(transform: Polarity, image: Pieces) -> tuple[Pieces, Back]:
    if not transform.sign:
        return image, _unchanged
    mean, deviation = moments(image)
    skewness = skewness_of(image, mean, deviation)
    if abs(skewness) < transform.least or skewness * transform.sign >= 0:
        return image, _unchanged
    twice = 2 * np.float32(mean)
    return Pieces(image.size, lambda rows, columns: float(twice) - image.cut(rows, columns)), _unchanged


@in_pieces.register
def _(transform: Crop, image: Pieces) -> tuple[Pieces, Back]:
    _, size = transform.geometry(image.size, None)
    top, left = transform.top, transform.left

    def cut(rows: slice, columns: slice) -> Tensor:
        return image.cut(moved(rows, top), moved(columns, left))

    def back(logits: Pieces) -> Pieces:
        def uncut(rows: slice, columns: slice) -> Tensor:
            inside = [
                slice(min(max(one.start - first, 0), length), min(max(one.stop - first, 0), length))
                for one, first, length in zip((rows, columns), (top, left), logits.size, strict=True)
            ]
            empty = any(one.start >= one.stop for one in inside)
            found = logits.cut(*([slice(0, 1)] * 2 if empty else inside))
            whole = found.new_full((len(found), rows.stop - rows.start, columns.stop - columns.start), -CERTAIN)
            whole[0] = 0.0
            if not empty:
                y, x = inside[0].start + top - rows.start, inside[1].start + left - columns.start
                whole[:, y : y + found.shape[1], x : x + found.shape[2]] = found
            return whole

        return Pieces(image.size, uncut)

    return Pieces(size, cut), back


@in_pieces.register
def _(transform: Downscale, image: Pieces) -> tuple[Pieces, Back]:
    factor = transform.factor
    filtered = locally(transform, image)
    _, size = transform.geometry(image.size, True)

    def cut(rows: slice, columns: slice) -> Tensor:
        fine = (slice(one.start * factor, (one.stop - 1) * factor + 1) for one in (rows, columns))
        return filtered.cut(*fine)[:, ::factor, ::factor]

    def back(logits: Pieces) -> Pieces:
        def fine(rows: slice, columns: slice) -> Tensor:
            places = [_between(one, length, factor) for one, length in zip((rows, columns), logits.size, strict=True)]
            coarse = logits.cut(*(wanted for wanted, _, _, _ in places))
            for dim, (_, low, high, share) in zip((1, 2), places, strict=True):
                weight = share.to(coarse).view(-1, 1) if dim == 1 else share.to(coarse)
                low, high = low.to(coarse.device), high.to(coarse.device)
                coarse = (1 - weight) * coarse.index_select(dim, low) + weight * coarse.index_select(dim, high)
            return coarse

        return Pieces(image.size, fine)

    return Pieces(size, cut), back


def _between(wanted: slice, length: int, factor: int) -> tuple[slice, Tensor, Tensor, Tensor]:
    """The coarse places that fine ones lie between, and how far: rounded as interpolation of the whole does."""
    last = length - 1
    scale = torch.tensor(last / max(last * factor, 1), dtype=torch.float32)
    place = (scale * torch.arange(wanted.start, wanted.stop, dtype=torch.float32)).clamp_max(last)
    low = place.long().clamp_max(last)
    high = (low + 1).clamp_max(last)
    first = int(low[0])
    return slice(first, int(high[-1]) + 1), low - first, high - first, place - low


# Figures of a whole image


def moments(image: Pieces) -> tuple[float, float]:
    """Mean and standard deviation, in float64."""
    count, mean, squares = 0, 0.0, 0.0
    for piece in _parts(image):
        variance, average = torch.var_mean(piece.double(), correction=0)
        delta, total = float(average) - mean, count + piece.numel()
        squares += float(variance) * piece.numel() + delta**2 * count * piece.numel() / total
        mean += delta * piece.numel() / total
        count = total
    return mean, math.sqrt(squares / count)


def skewness_of(image: Pieces, mean: float, deviation: float) -> float:
    """The third central moment over the cubed standard deviation, in float64."""
    sums, count = [], 0
    for piece in _parts(image):
        sums.append(float(((piece.double() - mean) / max(deviation, 1e-12)).pow(3).sum()))
        count += piece.numel()
    return math.fsum(sums) / count


def percentiles(image: Pieces, wanted: Sequence[float]) -> list[float]:
    """Percentiles, interpolated linearly: what `numpy.percentile` gives for all values in float64, in two passes."""
    count = math.prod(image.size) * len(image.cut(slice(0, 1), slice(0, 1)))
    places = [percent / 100 * (count - 1) for percent in wanted]
    ranks = sorted({end for place in places for end in (math.floor(place), math.ceil(place))})
    at = dict(zip(ranks, _ranked(image, ranks), strict=True))
    found = []
    for place in places:
        low, high, share = at[math.floor(place)], at[math.ceil(place)], place - math.floor(place)
        found.append(low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share))
    return found


def _ranked(image: Pieces, ranks: Sequence[int]) -> list[float]:
    """The values at some ranks of all values in order: the upper half of their bits first, then the lower one."""
    upper = np.zeros(1 << 16, np.int64)
    for keys in _keys(image):
        upper += np.bincount(keys >> 16, minlength=1 << 16)
    ends = upper.cumsum()
    homes = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    lower = {home: np.zeros(1 << 16, np.int64) for home in homes}
    for keys in _keys(image):
        high = keys >> 16
        for home, counts in lower.items():
            counts += np.bincount(keys[high == home] & 0xFFFF, minlength=1 << 16)
    found = []
    for rank, home in zip(ranks, homes, strict=True):
        inner = int(np.searchsorted(lower[home].cumsum(), rank - (ends[home] - upper[home]), side="right"))
        found.append(_value(home << 16 | inner))
    return found


def _keys(image: Pieces) -> Iterator[npt.NDArray[np.uint32]]:
    """Float32 values as whole numbers in the same order."""
    for piece in _parts(image):
        bits = piece.cpu().contiguous().numpy().view(np.uint32).ravel()
        yield np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value(key: int) -> float:
    bits = np.uint32(key ^ (1 << 31) if key >> 31 else ~key & 0xFFFFFFFF)
    return float(bits.view(np.float32))


def _parts(image: Pieces) -> Iterator[Tensor]:
    """All of an image in bands."""
    height, width = image.size
    rows = max(1, min(AT_ONCE // width, height))
    return (image.cut(band, slice(0, width)) for band in bands((height, width), rows))
