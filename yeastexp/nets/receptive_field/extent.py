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

MAX_VALUES = 1 << 25
"""Of an extent. Rows and columns are kept apart, unless an operator mixes them: then every pixel has its own values."""

NO_PIXEL = 1 << 40
"""First pixel (and minus the last one) of a position that depends on none: a minimum passes over it."""


class Unsupported(Exception):
    """A rule cannot say what an operator's output depends on; the message says why."""


@dataclass(frozen=True)
class Extent:
    """The first and the last pixel that each position of a tensor depends on, along one axis of the image.

    `ends` (2, *sizes) holds the first pixel and minus the last one, so that a union is a minimum; a size is 1 where all
    positions along that dimension are alike. `global_layer` names the layer after which every position depends on
    the whole image, `shift_variant_layer` the one that is not shift-equivariant.
    """

    # Two ends are exact although a set of pixels may have holes. Operators choose among their inputs by position,
    # never by the pixels behind them, so what an output depends on is a union of its inputs' sets, and the ends of a
    # union follow from the ends alone.
    ends: Integers
    global_layer: str = ""
    shift_variant_layer: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's shape, 1 where all positions along a dimension are alike."""
        return self.ends.shape[1:]

    @property
    def is_empty(self) -> bool:
        """Whether no position depends on any pixel."""
        return bool((self.ends[0] == NO_PIXEL).all())

    def covers(self, pixels: int) -> bool:
        """Whether every position depends on the first and the last of so many pixels."""
        return bool((self.ends[0] <= 0).all() and (self.ends[1] <= 1 - pixels).all())

    def expand_dims(self, dimensions: int) -> Extent:
        """The same with leading dimensions of size 1, up to so many, as broadcasting adds them."""
        missing = dimensions - len(self.sizes)
        return replace(self, ends=self.ends.reshape(2, *[1] * missing, *self.sizes)) if missing > 0 else self

    def unsqueeze(self, dim: int) -> Extent:
        """With a new dimension of size 1 before `dim`."""
        return replace(self, ends=np.expand_dims(self.ends, 1 + dim))

    def squeeze(self, dim: int) -> Extent:
        """Without the dimension `dim`, whose size is 1."""
        return replace(self, ends=self.ends.squeeze(1 + dim % len(self.sizes)))

    def gather(self, dim: int, positions: Integers) -> Extent:
        """Position i along `dim` of the result is the union of `positions[i]` (out, taps); -1 stands for padding."""
        present = positions >= 0
        if self.sizes[dim] == 1 and present.any(axis=1).all():
            return self
        axis = 1 + dim % len(self.sizes)
        _check_size(self.ends.size // self.ends.shape[axis] * positions.size)
        absent = ~present.reshape(positions.shape + (1,) * (self.ends.ndim - axis - 1))
        taps = np.take(self.ends, positions.clip(0, self.sizes[dim] - 1), axis=axis)
        ends = np.where(absent, NO_PIXEL, taps).min(axis=axis + 1, initial=NO_PIXEL)
        return replace(self, ends=_narrowed(ends))

    def reduce(self, dims: Sequence[int]) -> Extent:
        """Every position along `dims` depends on what any of them did; the dimensions are kept, at size 1."""
        axes = tuple(1 + dim % len(self.sizes) for dim in dims)
        return replace(self, ends=self.ends.min(axis=axes, keepdims=True))

    def permute(self, order: Sequence[int]) -> Extent:
        """The dimensions in another order."""
        return replace(self, ends=self.ends.transpose(0, *(1 + dim % len(order) for dim in order)))

    def reshape(self, old: Shape, new: Shape) -> Extent:
        """The dimensions of a tensor of shape `old` split and merged into `new`, in row-major order."""
        wide: list[int] = []
        sizes: list[int] = []
        for before, after in _reshape_groups(old, new):
            # Dimensions that nothing depends on stay at size 1; the others are written out before they are regrouped.
            differs = any(self.sizes[dim] > 1 for dim in before)
            wide += [old[dim] if differs else 1 for dim in before]
            sizes += [new[dim] if differs else 1 for dim in after]
        _check_size(2 * prod(wide))
        ends = np.broadcast_to(self.ends, (2, *wide)).reshape(2, *sizes)
        return replace(self, ends=_narrowed(ends))

    def scatter(self, source: Extent | None, dim: int, positions: Integers, length: int) -> Extent:
        """The same after `source` (None: a constant) was written to `positions` along `dim`, of size `length`."""
        sides = slice(None, dim), slice(dim + 1, None)
        written = source or Extent(np.full((2, *self.sizes[sides[0]], 1, *self.sizes[sides[1]]), NO_PIXEL))
        left, right = (np.broadcast_shapes(self.sizes[side], written.sizes[side]) for side in sides)
        shape = (2, *left, length, *right)
        _check_size(prod(shape))
        ends = np.broadcast_to(self.ends, shape).copy()
        ends[(slice(None),) * (1 + dim) + (positions,)] = written.ends
        return Extent(_narrowed(ends), *self._layers(written))

    def union(self, other: Extent) -> Extent:
        """What two tensors depend on together, broadcast."""
        _check_size(2 * prod(np.broadcast_shapes(self.sizes, other.sizes)))
        return Extent(np.minimum(self.ends, other.ends), *self._layers(other))

    def _layers(self, other: Extent) -> tuple[str, str]:
        return self.global_layer or other.global_layer, self.shift_variant_layer or other.shift_variant_layer


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


def _narrowed(ends: Integers) -> Integers:
    """With size 1 along each dimension along which all positions are alike."""
    for axis in range(1, ends.ndim):
        first = ends[(slice(None),) * axis + (slice(0, 1),)]
        if ends.shape[axis] > 1 and (ends == first).all():
            ends = first
    return ends


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
