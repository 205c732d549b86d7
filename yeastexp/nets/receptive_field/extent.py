"""Which pixels each position of a tensor depends on, along one axis of the image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Shape = Sequence[int]

MAX_VALUES = 1 << 24
"""Of an extent. Rows and columns are kept apart, unless an operator mixes them: then every pixel has its own values."""

NO_PIXEL = 1 << 40
"""First pixel (and minus the last one) of a position that depends on none: a minimum passes over it."""

NO_TAP, BEYOND = -1, -2
"""For the position of an input: there is none (its weight is zero), and it lies in the padding."""


class Unsupported(Exception):
    """A rule cannot say what an operator's output depends on; the message says why."""


@dataclass(frozen=True)
class Extent:
    """The first and the last pixel that each position of a tensor depends on, along one axis of the image.

    `table` (3, *sizes) holds the first pixel, minus the last one, and -1 where padding was read on the way, so that a
    union is a minimum; a size is 1 where all positions along that dimension are alike. `global_layer` names the layer
    after which every position depends on the whole image, `shift_variant_layer` the one that is not shift-equivariant;
    `unknown` says after which operator this is no more than a bound. `presumed` is set where all that `global_layer`
    read depended on the whole image before, for the image is small: it may have pooled, or mixed channels alone.
    """

    # Two ends are exact although a set of pixels may have holes. Operators choose among their inputs by position,
    # never by the pixels behind them, so what an output depends on is a union of its inputs' sets, and the ends of a
    # union follow from the ends alone. Taps that lie in the padding are missing from the ends: a dilation of half the
    # image drops all but the middle one, everywhere alike. So positions that have read padding are told from others.
    table: Integers
    global_layer: str = ""
    shift_variant_layer: str = ""
    unknown: str = ""
    presumed: bool = False

    @staticmethod
    def empty(sizes: Shape) -> Extent:
        """Of positions that depend on no pixel."""
        table = np.full((3, *sizes), NO_PIXEL)
        table[2] = 0
        return Extent(table)

    @staticmethod
    def of_pixels(pixels: int, dim: int) -> Extent:
        """Of the image itself (B, C, H, W): along `dim`, each position depends on its own pixel."""
        own = np.arange(pixels)
        sizes = [pixels if axis == dim else 1 for axis in range(4)]
        return Extent(np.stack([own, -own, np.zeros_like(own)]).reshape(3, *sizes))

    @property
    def ends(self) -> Integers:
        """The first pixel and minus the last one (2, *sizes)."""
        return self.table[:2]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's shape, 1 where all positions along a dimension are alike."""
        return self.table.shape[1:]

    @property
    def is_empty(self) -> bool:
        """Whether no position depends on any pixel."""
        return bool((self.ends[0] == NO_PIXEL).all())

    @property
    def lies_beyond(self) -> bool:
        """Whether no position depends on any pixel, but padding was read, where a larger image may have some."""
        return self.is_empty and bool(self.table[2].any())

    def covers(self, pixels: int) -> bool:
        """Whether every position depends on the first and the last of so many pixels."""
        return bool((self.ends[0] <= 0).all() and (self.ends[1] <= 1 - pixels).all())

    def spans(self, dim: int) -> bool:
        """Whether positions along `dim` lie across the image, unlike those within a window, or channels."""
        first, axis = self.table[0], dim % len(self.sizes)
        if self.sizes[dim] == 1:
            return False
        low, high = first.min(axis=axis), np.where(first < NO_PIXEL, first, -NO_PIXEL).max(axis=axis)
        return bool(2 * (high - low).max() >= high.max() - low.min() > 0)

    def expand_dims(self, dimensions: int) -> Extent:
        """The same with leading dimensions of size 1, up to so many, as broadcasting adds them."""
        missing = dimensions - len(self.sizes)
        return replace(self, table=self.table.reshape(3, *[1] * missing, *self.sizes)) if missing > 0 else self

    def unsqueeze(self, dim: int) -> Extent:
        """With a new dimension of size 1 before `dim`."""
        return replace(self, table=np.expand_dims(self.table, 1 + dim))

    def squeeze(self, dim: int) -> Extent:
        """Without the dimension `dim`, whose size is 1."""
        return replace(self, table=self.table.squeeze(1 + dim % len(self.sizes)))

    def gather(self, dim: int, positions: Integers) -> Extent:
        """Position i along `dim` of the result is the union of `positions[i]` (out, taps), or NO_TAP, or BEYOND."""
        absent = positions < 0
        if self.sizes[dim] == 1 and not absent.all(axis=1).any():
            return self
        axis = dim % len(self.sizes)
        _check_size(self.table.size // self.sizes[axis] * len(positions))
        sides = (1,) * (len(self.sizes) - axis - 1)
        # Beside the border along another axis, padding that was read before stays read.
        across = self.spans(dim)
        beyond = -(positions == BEYOND).astype(np.int64)
        table: Integers | None = None
        for tap, missing, outside in zip(positions.T, absent.T, beyond.T, strict=True):
            read = np.take(self.table, tap.clip(0, self.sizes[axis] - 1), axis=1 + axis)
            if missing.any():
                read[:2] = np.where(missing.reshape(-1, *sides), NO_PIXEL, read[:2])
                flags = outside.reshape(-1, *sides)
                read[2] = np.where(
                    missing.reshape(-1, *sides), flags if across else np.maximum(flags, read[2]), read[2]
                )
            table = read if table is None else np.minimum(table, read, out=table)
        assert table is not None, "an operator reads at least one position"
        return replace(self, table=_narrowed(table))

    def reduce(self, dims: Sequence[int]) -> Extent:
        """Every position along `dims` depends on what any of them did; the dimensions are kept, at size 1."""
        axes = tuple(1 + dim % len(self.sizes) for dim in dims)
        return replace(self, table=self.table.min(axis=axes, keepdims=True))

    def collapsed(self, dimensions: int | None = None) -> Extent:
        """Every position depends on what any of them did; of so many dimensions, all of size 1."""
        ends = self.table.min(axis=tuple(range(1, self.table.ndim)))
        return replace(self, table=ends.reshape(3, *[1] * (len(self.sizes) if dimensions is None else dimensions)))

    def permute(self, order: Sequence[int]) -> Extent:
        """The dimensions in another order."""
        return replace(self, table=self.table.transpose(0, *(1 + dim % len(order) for dim in order)))

    def reshape(self, old: Shape, new: Shape) -> Extent:
        """The dimensions of a tensor of shape `old` split and merged into `new`, in row-major order."""
        wide: list[int] = []
        sizes: list[int] = []
        for before, after in _reshape_groups(old, new):
            # Dimensions that nothing depends on stay at size 1; the others are written out before they are regrouped.
            differs = any(self.sizes[dim] > 1 for dim in before)
            wide += [old[dim] if differs else 1 for dim in before]
            sizes += [new[dim] if differs else 1 for dim in after]
        _check_size(3 * prod(wide))
        table = np.broadcast_to(self.table, (3, *wide)).reshape(3, *sizes)
        return replace(self, table=_narrowed(table))

    def scatter(self, source: Extent | None, dim: int, positions: Integers, length: int) -> Extent:
        """The same after `source` (None: a constant) was written to `positions` along `dim`, of size `length`."""
        sides = slice(None, dim), slice(dim + 1, None)
        written = source or Extent.empty([*self.sizes[sides[0]], 1, *self.sizes[sides[1]]])
        left, right = (np.broadcast_shapes(self.sizes[side], written.sizes[side]) for side in sides)
        shape = (3, *left, length, *right)
        _check_size(prod(shape))
        table = np.broadcast_to(self.table, shape).copy()
        table[(slice(None),) * (1 + dim) + (positions,)] = written.table
        return Extent(_narrowed(table), *self._layers(written))

    def union(self, other: Extent) -> Extent:
        """What two tensors depend on together, broadcast."""
        if (self.global_layer or other.global_layer) and max((*self.sizes, *other.sizes), default=1) > 1:
            return self.collapsed().union(other.collapsed())  # no table of what is the whole image everywhere
        _check_size(3 * prod(np.broadcast_shapes(self.sizes, other.sizes)))
        return Extent(np.minimum(self.table, other.table), *self._layers(other))

    def _layers(self, other: Extent) -> tuple[str, str, str, bool]:
        return (
            self.global_layer or other.global_layer,
            self.shift_variant_layer or other.shift_variant_layer,
            self.unknown or other.unknown,
            self.presumed if self.global_layer else other.presumed,
        )


def union(extents: Sequence[Extent], dimensions: int) -> Extent:
    """What several tensors depend on together, broadcast to so many dimensions."""
    first, *others = (extent.expand_dims(dimensions) for extent in extents)
    for other in others:
        if other is not first:
            first = first.union(other)
    return first


def _check_size(values: int) -> None:
    if values > MAX_VALUES:
        raise Unsupported(f"it mixes rows and columns, which takes {values:,} values, too many")


def _narrowed(table: Integers) -> Integers:
    """With size 1 along each dimension along which all positions are alike."""
    for axis in range(1, table.ndim):
        first = table[(slice(None),) * axis + (slice(0, 1),)]
        if table.shape[axis] > 1 and (table == first).all():
            table = first
    return table


def _reshape_groups(old: Shape, new: Shape) -> Iterator[tuple[range, range]]:
    """Runs of dimensions, before and after a reshape, that hold the same elements."""
    # Two runs end together wherever the products of all sizes so far are equal: (6, 4) to (2, 3, 4) has the groups
    # (6,) to (2, 3), and (4,) to (4,).
    starts = [(0, 0)]
    products = [list(itertools.accumulate(shape, lambda a, b: a * b)) for shape in (old, new)]
    for i, product in enumerate(products[0][:-1]):
        later = [j for j, other in enumerate(products[1][:-1]) if other == product and j >= starts[-1][1]]
        if later:
            starts.append((i + 1, later[0] + 1))
    for (i, j), (k, m) in zip(starts, [*starts[1:], (len(old), len(new))], strict=True):
        yield range(i, k), range(j, m)
