"""Extents: the pixels that each position of a tensor depends on, along one axis of the image."""

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
"""The most values in one table. Only operators that mix rows and columns come near: then each pixel has its own."""

# Larger than any pixel index, so that a minimum passes over it, and small enough that the sums and differences of a
# few of them stay within int64.
NO_PIXEL = 1 << 40
"""The first pixel, and minus the last one, of a position that depends on none."""

NO_TAP, BEYOND = -1, -2
"""Markers in place of an input position: no input is read (its weight is zero), or the read falls into the padding."""


class Unsupported(Exception):
    """Raised by a rule that cannot tell what an operator's output depends on; the message is the reason."""


@dataclass(frozen=True)
class Extent:
    """The first and the last pixel that each position of a tensor depends on, along one axis of the image.

    `table` (3, *sizes) holds the first pixel, minus the last one, and -1 where padding was read on the way, so that a
    union is a minimum; a size is 1 where all positions along that dimension are alike. `global_layer` names the layer
    after which every position depends on the whole image, `shift_variant_layer` the one that is not shift-equivariant;
    `unknown` names the operator after which the table is only a bound. `presumed` is set if every input of
    `global_layer` already depended on the whole of a small image: the layer may pool, or only mix channels.
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
        """The extent of positions that depend on no pixel."""
        table = np.full((3, *sizes), NO_PIXEL)
        table[2] = 0
        return Extent(table)

    @staticmethod
    def of_pixels(pixels: int, dim: int) -> Extent:
        """The extent of the image itself (B, C, H, W): along `dim`, each position depends on its own pixel."""
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
        """Whether no position depends on any pixel, but some read padding, where a larger image may have pixels."""
        return self.is_empty and bool(self.table[2].any())

    def covers(self, pixels: int) -> bool:
        """Whether every position depends on the first and the last of so many pixels."""
        return bool((self.ends[0] <= 0).all() and (self.ends[1] <= 1 - pixels).all())

    def spans(self, dim: int) -> bool:
        """Whether positions along `dim` lie across the image, unlike those within a window, or channels."""
        first, axis = self.table[0], dim % len(self.sizes)
        if self.sizes[dim] == 1:
            return False
        # Along H or W of a map the first pixel moves over most of the range that it has in the tensor; along the taps
        # of an unfolded kernel, say, only by the kernel's size. Half of the range tells them apart without knowing
        # which operators reshaped the tensor.
        low, high = first.min(axis=axis), np.where(first < NO_PIXEL, first, -NO_PIXEL).max(axis=axis)
        return bool(2 * (high - low).max() >= high.max() - low.min() > 0)

    def expand_dims(self, dimensions: int) -> Extent:
        """Return the extent with leading dimensions of size 1, up to so many in all, as broadcasting adds them."""
        missing = dimensions - len(self.sizes)
        return replace(self, table=self.table.reshape(3, *[1] * missing, *self.sizes)) if missing > 0 else self

    def unsqueeze(self, dim: int) -> Extent:
        """Return the extent with a new dimension of size 1 before `dim`."""
        return replace(self, table=np.expand_dims(self.table, 1 + dim))

    def squeeze(self, dim: int) -> Extent:
        """Return the extent without the dimension `dim`, whose size is 1."""
        return replace(self, table=self.table.squeeze(1 + dim % len(self.sizes)))

    def gather(self, dim: int, positions: Integers) -> Extent:
        """Return the extent whose position i along `dim` is the union of those at `positions[i]`.

        `positions` (out, taps) holds indices along `dim`, NO_TAP or BEYOND.
        """
        absent = positions < 0
        # Where all positions are alike, any tap that exists gives the same, so the dimension stays at size 1: this
        # keeps the table of the height free of the width. Only an output position without any tap would differ.
        if self.sizes[dim] == 1 and not absent.all(axis=1).any():
            return self
        axis = dim % len(self.sizes)
        _check_size(self.table.size // self.sizes[axis] * len(positions))
        sides = (1,) * (len(self.sizes) - axis - 1)
        # Padding beside the border of the other axis must not be flagged: a column of padding crosses every row, and
        # each row would seem to have read beyond the upper border, however large the image. There a tap in the padding
        # only hands on the flag of the border position next to it.
        across = self.spans(dim)
        beyond = -(positions == BEYOND).astype(np.int64)
        # Tap by tap: taking all at once would need a copy of the table as many times as the kernel has taps.
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
        """Return the union over all positions along `dims`; the dimensions are kept, at size 1."""
        axes = tuple(1 + dim % len(self.sizes) for dim in dims)
        return replace(self, table=self.table.min(axis=axes, keepdims=True))

    def collapsed(self, dimensions: int | None = None) -> Extent:
        """Return the union over all positions, with so many dimensions (default: as many as before), all of size 1."""
        ends = self.table.min(axis=tuple(range(1, self.table.ndim)))
        return replace(self, table=ends.reshape(3, *[1] * (len(self.sizes) if dimensions is None else dimensions)))

    def permute(self, order: Sequence[int]) -> Extent:
        """Return the extent with its dimensions in another order."""
        return replace(self, table=self.table.transpose(0, *(1 + dim % len(order) for dim in order)))

    def reshape(self, old: Shape, new: Shape) -> Extent:
        """Return the extent of a tensor of shape `old` after it was reshaped to `new`, in row-major order."""
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
        """Return the extent after `source` (None: a constant) was written to `positions` along `dim`.

        `length` is the true size of `dim`, at which positions that were alike are written out.
        """
        sides = slice(None, dim), slice(dim + 1, None)
        written = source or Extent.empty([*self.sizes[sides[0]], 1, *self.sizes[sides[1]]])
        left, right = (np.broadcast_shapes(self.sizes[side], written.sizes[side]) for side in sides)
        shape = (3, *left, length, *right)
        _check_size(prod(shape))
        table = np.broadcast_to(self.table, shape).copy()
        table[(slice(None),) * (1 + dim) + (positions,)] = written.table
        return Extent(_narrowed(table), *self._layers(written))

    def union(self, other: Extent) -> Extent:
        """Return the pixels that two tensors, broadcast against each other, depend on together."""
        # After a global layer every position depends on the whole image, whatever the other tensor adds: no table.
        if (self.global_layer or other.global_layer) and max((*self.sizes, *other.sizes), default=1) > 1:
            return self.collapsed().union(other.collapsed())
        _check_size(3 * prod(np.broadcast_shapes(self.sizes, other.sizes)))
        return Extent(np.minimum(self.table, other.table), *self._layers(other))

    def _layers(self, other: Extent) -> tuple[str, str, str, bool]:
        """The fields other than the table of a union with `other`; where both name a layer, `self` decides."""
        return (
            self.global_layer or other.global_layer,
            self.shift_variant_layer or other.shift_variant_layer,
            self.unknown or other.unknown,
            self.presumed if self.global_layer else other.presumed,
        )


def union(extents: Sequence[Extent], dimensions: int) -> Extent:
    """Return the pixels that several tensors, broadcast to so many dimensions, depend on together."""
    first, *others = (extent.expand_dims(dimensions) for extent in extents)
    for other in others:
        if other is not first:
            first = first.union(other)
    return first


def _check_size(values: int) -> None:
    if values > MAX_VALUES:
        raise Unsupported(f"it mixes rows and columns, which takes {values:,} values, too many")


def _narrowed(table: Integers) -> Integers:
    """Return the table cut to size 1 along each dimension along which all positions are alike."""
    for axis in range(1, table.ndim):
        first = table[(slice(None),) * axis + (slice(0, 1),)]
        if table.shape[axis] > 1 and (table == first).all():
            table = first
    return table


def _reshape_groups(old: Shape, new: Shape) -> Iterator[tuple[range, range]]:
    """Yield runs of dimensions, before and after a reshape, that hold the same elements."""
    # Regrouping run by run keeps dimensions at size 1 that the reshape leaves alone, so that flattening the channels
    # does not write out the map. Two runs end together wherever the products of all sizes so far are equal: (6, 4) to
    # (2, 3, 4) has the groups (6,) to (2, 3), and (4,) to (4,).
    starts = [(0, 0)]
    products = [list(itertools.accumulate(shape, lambda a, b: a * b)) for shape in (old, new)]
    for i, product in enumerate(products[0][:-1]):
        later = [j for j, other in enumerate(products[1][:-1]) if other == product and j >= starts[-1][1]]
        if later:
            starts.append((i + 1, later[0] + 1))
    for (i, j), (k, m) in zip(starts, [*starts[1:], (len(old), len(new))], strict=True):
        yield range(i, k), range(j, m)
