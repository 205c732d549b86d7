"""Cells from hills: a seeded watershed that labels an image of any size band by band, just as it does at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Planes = Callable[[slice], tuple[Float, Float]]
"""Returns the hills and the probability of foreground (h, W) in some rows."""

NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
FORWARD = [(down, right) for down, right in NEIGHBOURS if (down, right) > (0, 0)]

BAND = 1 << 22
"""The pixels of a band, which are in memory together."""


@dataclass(frozen=True)
class Watershed:
    """A seeded watershed (Meyer 1994, doi:10.1016/0165-1684(94)90060-4) of hills where foreground is likelier than not.

    Hills are smoothed by a Gaussian first, within the foreground. Each pixel belongs to the top that the steepest way
    up leads to. Two tops are two cells if both are at least `least_height` high and every way between them leads below
    that, and by `least_depth` below the lower one; else they are one. Where `highest_pass` is given, ways have to lead
    below it in place of `least_height`. A lower top goes to the neighbour over the highest pass, and to no cell if it
    has none. What has fewer pixels than `least_area`, or a lower mean foreground than `least_foreground`, is no cell. A
    cell is one region, connected by sides or corners, and numbers are given in reading order of first pixels.

    No pixel's cell follows from a bounded neighbourhood: a pass far away may decide. So bands are labelled
    provisionally, and what they have in common is a graph of tops and passes, which is small.
    """

    least_height: float = 0.7
    least_depth: float = 0.0
    least_area: int = 15
    least_foreground: float = 0.7
    smoothing_px: float = 1.5
    highest_pass: float | None = None

    def cells(self, hill: Float, foreground: Float) -> Labels:
        """Return the cells (H, W) of an image in memory, numbered from 1 in reading order."""
        labels = np.zeros(hill.shape, np.int32)
        self.fill(lambda rows: (hill[rows], foreground[rows]), lambda: labels)
        return labels

    def fill(self, planes: Planes, labels: Callable[[], Array], band: int | None = None) -> int:
        """Write the cells into an array (H, W), which is asked for again for each band; return how many there are."""
        height, width = labels().shape
        graph = _Graph(width)
        rows_of_band = max(1, (band or BAND) // width)
        bands = [slice(row, min(row + rows_of_band, height)) for row in range(0, height, rows_of_band)]
        # Provisional names are written first and replaced by numbers in a second pass, because the last row may still
        # decide which cell the first one belongs to.
        for rows in bands:
            labels()[rows] = graph.add(rows, *self._heights(planes, rows, height))
        number = graph.numbered(self)
        for rows in bands:
            part = labels()
            part[rows] = number[part[rows]]
        return int(number.max(initial=0))

    def _heights(self, planes: Planes, rows: slice, height: int) -> tuple[Float, Float]:
        """Return the smoothed hills (h + 2, W) in some rows and one more on either side, and the foreground (h, W).

        Hills are -inf outside of the foreground and of the image.
        """
        # SciPy cuts its Gaussian off at four standard deviations, so with these rows more no bit depends on the bands.
        margin = 1 + math.ceil(4 * self.smoothing_px)
        wide = slice(max(rows.start - margin, 0), min(rows.stop + margin, height))
        hill, foreground = planes(wide)
        inside = foreground > 0.5
        smooth = np.where(inside, hill, 0)
        # Divided by the share of the Gaussian that lies in the foreground: otherwise the zeros around a small cell
        # would pull it below the least height.
        if self.smoothing_px:
            share = ndimage.gaussian_filter(inside.astype(np.float32), self.smoothing_px)
            smooth = ndimage.gaussian_filter(smooth, self.smoothing_px) / np.maximum(share, 1e-6)
        height_map = np.where(inside, smooth, -np.inf).astype(np.float32)
        height_map = np.pad(height_map, ((margin, margin), (0, 0)), constant_values=-np.inf)
        length, above = rows.stop - rows.start, rows.start - wide.start
        first = above + margin - 1
        return height_map[first : first + length + 2], foreground[above : above + length]


@dataclass
class _Graph:
    """The tops of an image and the passes between them, gathered band by band from the first row on.

    In each band a pixel is named by the place that the steepest way up leads to: a top, or a pixel in the next row of a
    neighbouring band, whose name there is then an alias of this one. Names are counted from 1 over all bands; 0 is no
    name.
    """

    width: int
    names: int = 0
    place: list[Array] = field(default_factory=list)
    """By name, the flat place in the image that its pixels lead to; the other lists are by name, too."""
    height: list[Array] = field(default_factory=list)
    """The height at that place."""
    area: list[Array] = field(default_factory=list)
    foreground: list[Array] = field(default_factory=list)
    """The sum of its pixels' foreground in 255ths: integers, so that the bands do not change it by rounding."""
    first: list[Array] = field(default_factory=list)
    """The flat place of its first pixel in reading order."""
    alias: list[tuple[Array, Array]] = field(default_factory=list)
    passes: list[tuple[Array, Array, Array]] = field(default_factory=list)
    """Two names and the height of a pass between them."""
    last_names: Array | None = None
    last_height: Array | None = None
    downward: tuple[Array, Array] | None = None
    """The names of the last band that lead into the next one, and the columns that they lead to."""

    def add(self, rows: slice, height: Float, foreground: Float) -> Array:
        """Add the next band and return the names (h, W) of its pixels.

        `height` (h + 2, W) has a row more on either side, `foreground` (h, W) has not.
        """
        # The rows beside the band are where ways may lead; their pixels are named by their own bands.
        inside = np.isfinite(height)
        inside[[0, -1]] = False
        target = _targets(height)[inside]
        targets, name = np.unique(target, return_inverse=True)
        names = np.zeros(height.shape, np.int64)
        names[inside] = name + 1 + self.names
        place = targets + (rows.start - 1) * self.width
        pixel = np.flatnonzero(inside) + (rows.start - 1) * self.width
        count = len(targets)
        self.place.append(place)
        self.height.append(height.ravel()[targets])
        self.area.append(np.bincount(name, minlength=count))
        certainty = np.rint(foreground[inside[1:-1]].astype(np.float64) * 255)
        self.foreground.append(np.bincount(name, certainty, minlength=count).astype(np.int64))
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, name, pixel)
        self.first.append(first)
        self._join(names, height, targets)
        self.names += count
        return names[1:-1]

    def _join(self, names: Array, height: Float, targets: Array) -> None:
        """Connect the names of a band to those of the band above, and remember which lead into the band below."""
        own = np.arange(len(targets)) + 1 + self.names
        if self.last_names is not None and self.last_height is not None and self.downward is not None:
            upward = targets < self.width
            self.alias.append((own[upward], self.last_names[targets[upward]]))
            leading, columns = self.downward
            self.alias.append((leading, names[1, columns]))
            names[0], height[0] = self.last_names, self.last_height
        below = len(names) - 1
        down = targets >= below * self.width
        self.downward = own[down], targets[down] - below * self.width
        self.passes.append(_passes(names[:-1], height[:-1]))
        self.last_names, self.last_height = names[-2].copy(), height[-2].copy()
        names[0] = 0

    def numbered(self, rule: Watershed) -> Labels:
        """Return the cell of each name, numbered in reading order, 0 for none."""
        # Aliases form chains where a way leads through several bands; each pass halves their lengths. They never form
        # circles, for a way only leads up.
        top = np.arange(self.names + 1)
        for names, others in self.alias:
            top[names] = others
        while not np.array_equal(higher := top[top], top):
            top = higher
        place, height = (np.concatenate([[-1], *parts]) for parts in (self.place, self.height))
        # Tops are numbered by place from here on: their names depend on the bands, and ties must not.
        tops = np.unique(top[1:])
        tops = tops[np.argsort(place[tops])]
        rank = np.full(self.names + 1, -1)
        rank[tops] = np.arange(len(tops))
        rank = rank[top]
        firsts, seconds, passes = (np.concatenate(parts) for parts in zip(*self.passes, strict=True))
        edges = _highest(rank[firsts], rank[seconds], passes)
        cell = _merged(height[tops], *edges, rule)[rank[1:]]
        area, foreground, first = (np.concatenate(parts) for parts in (self.area, self.foreground, self.first))
        kept = cell >= 0
        total = np.bincount(cell[kept], area[kept], minlength=len(tops))
        certain = np.bincount(cell[kept], foreground[kept], minlength=len(tops))
        beginning = np.full(len(tops), np.iinfo(np.int64).max)
        np.minimum.at(beginning, cell[kept], first[kept])
        is_cell = (total >= max(rule.least_area, 1)) & (certain >= rule.least_foreground * 255 * total)
        chosen = np.flatnonzero(is_cell)
        number = np.zeros(len(tops) + 1, np.int32)
        number[chosen[np.argsort(beginning[chosen])]] = np.arange(1, len(chosen) + 1)
        # The number of cell -1 is the last one, which is 0: no cell.
        return np.concatenate([[0], number[cell]]).astype(np.int32)


def _targets(height: Float) -> Array:
    """Return for each pixel (H, W) the flat place that the steepest way up leads to.

    Ways end in the first and in the last row. Of equal heights the pixel that comes first counts as the higher one, so
    that no way leads in circles, and plateaus have one top.
    """
    rows, columns = height.shape
    padded = np.pad(height, 1, constant_values=-np.inf)
    best, step = np.full_like(height, -np.inf), np.zeros(height.shape, np.int32)
    # In reading order, so that only what is higher than all before is taken, and of equals the first.
    for down, right in sorted([*NEIGHBOURS, (0, 0)]):
        there = padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
        np.copyto(step, down * columns + right, where=there > best)
        np.maximum(best, there, out=best)
    step[[0, -1]] = 0
    step[np.isneginf(height)] = 0
    # Each turn doubles the steps that all ways have gone, so there are about log2 of the longest way's steps.
    climbing = np.flatnonzero(step)
    flat = np.arange(rows * columns)
    flat[climbing] += step.ravel()[climbing]
    while len(climbing):
        higher = flat[flat[climbing]]
        moved = higher != flat[climbing]
        flat[climbing] = higher
        climbing = climbing[moved]
    return flat.reshape(rows, columns)


def _passes(names: Array, height: Float) -> tuple[Array, Array, Array]:
    """Return pairs of names, (N,) and (N,), whose pixels touch, and the highest pass between the two (N,)."""
    # A way from one top to another crosses between two pixels that touch, and is as high there as the lower of them.
    firsts, seconds, passes = [], [], []
    rows, columns = names.shape
    for down, right in FORWARD:
        here = slice(0, rows - down), slice(max(0, -right), columns - max(0, right))
        there = slice(down, rows), slice(max(0, right), columns - max(0, -right))
        first, second = names[here], names[there]
        meet = (first != second) & (first > 0) & (second > 0)
        firsts.append(first[meet])
        seconds.append(second[meet])
        passes.append(np.minimum(height[here][meet], height[there][meet]))
    return _highest(np.concatenate(firsts), np.concatenate(seconds), np.concatenate(passes))


def _highest(firsts: Array, seconds: Array, passes: Array) -> tuple[Array, Array, Array]:
    """Return the highest pass between each two, sorted from the highest to the lowest, ties by their first and second.

    Two sides of a pass that are the same are left out.
    """
    apart = firsts != seconds
    low, high = np.minimum(firsts, seconds)[apart], np.maximum(firsts, seconds)[apart]
    order = np.lexsort((high, low, -passes[apart]))
    low, high, passes = low[order], high[order], passes[apart][order]
    # `unique` gives the first place of each pair, which is that of its highest pass.
    _, highest = np.unique(low * (high.max(initial=0) + 1) + high, return_index=True)
    highest.sort()
    return low[highest], high[highest], passes[highest]


def _merged(tops: Array, firsts: Array, seconds: Array, passes: Array, rule: Watershed) -> Array:
    """Return the cell (N,) that each top belongs to, named by one of its tops; -1 for tops that belong to none.

    Passes come sorted from the highest to the lowest.
    """
    # As in Kruskal's algorithm: when a pass is reached, all that higher passes join is joined, so it is the highest way
    # between its two sides, and their highest tops are known. `parent` is a union-find forest.
    parent, peak = list(range(len(tops))), tops.tolist()
    highest = rule.least_height if rule.highest_pass is None else rule.highest_pass

    def root(top: int) -> int:
        while parent[top] != top:
            parent[top] = top = parent[parent[top]]
        return top

    for first, second, height in zip(firsts.tolist(), seconds.tolist(), passes.tolist(), strict=True):
        a, b = root(first), root(second)
        lower = min(peak[a], peak[b])
        if a != b and (height >= highest or lower < rule.least_height or lower - height < rule.least_depth):
            parent[b], peak[a] = a, max(peak[a], peak[b])
    roots = np.array([root(top) for top in range(len(tops))], dtype=np.int64)
    return np.where(np.array(peak)[roots] >= rule.least_height, roots, -1) if len(roots) else roots
