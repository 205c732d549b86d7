"""What each position of a tensor sees of the image along one of its axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Shape = Sequence[int]

LARGEST = 1 << 25
"""Numbers. What is seen is kept for every row alone, but where rows and columns mix for every pixel."""

NOTHING = 1 << 40
"""Stands for the first pixel (and minus the last one) of a position that sees none."""


class CannotFollow(Exception):
    """A rule cannot say what an operator sees; the message says why."""


@dataclass(frozen=True)
class Reach:
    """The first and the last pixel that each position of a tensor depends on, along one axis of the image.

    `ends` (2, *sizes) holds the first pixel and minus the last one, so that joining is a minimum; a size is 1 where all
    positions along that dimension see the same. Operators choose by position, never by the pixel seen, so the two ends
    of a set are exact without what lies between; holes show as positions that see `NOTHING`. `whole` names the layer
    that saw everything there is, `uneven` the one that treats positions differently.
    """

    ends: Integers
    whole: str = ""
    uneven: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's shape, 1 where all positions along a dimension see the same."""
        return self.ends.shape[1:]

    def covers(self, pixels: int) -> bool:
        """Whether every position sees the first and the last of so many pixels."""
        return bool((self.ends[0] <= 0).all() and (self.ends[1] <= 1 - pixels).all())

    def aligned(self, dimensions: int) -> Reach:
        """The same with further leading dimensions, as broadcasting adds them."""
        missing = dimensions - len(self.sizes)
        return replace(self, ends=self.ends.reshape(2, *[1] * missing, *self.sizes)) if missing > 0 else self

    def taken(self, dim: int, positions: Integers) -> Reach:
        """Position i along `dim` sees what `positions[i]` (out, taps) saw together, -1 standing for nothing."""
        present = positions >= 0
        if self.sizes[dim] == 1 and present.any(axis=1).all():
            return self
        axis = 1 + dim % len(self.sizes)
        _refuse_large(self.ends.size // self.ends.shape[axis] * positions.size)
        absent = ~present.reshape(positions.shape + (1,) * (self.ends.ndim - axis - 1))
        taken = np.take(self.ends, positions.clip(0, self.sizes[dim] - 1), axis=axis)
        ends = np.where(absent, NOTHING, taken).min(axis=axis + 1, initial=NOTHING)
        return replace(self, ends=_narrowed(ends))

    def over(self, dims: Sequence[int]) -> Reach:
        """Every position along `dims` sees what any of them saw."""
        axes = tuple(1 + dim % len(self.sizes) for dim in dims)
        return replace(self, ends=self.ends.min(axis=axes, keepdims=True))

    def permuted(self, order: Sequence[int]) -> Reach:
        """The dimensions in another order."""
        return replace(self, ends=self.ends.transpose(0, *(1 + dim % len(order) for dim in order)))

    def reshaped(self, old: Shape, new: Shape) -> Reach:
        """The dimensions of a tensor of shape `old` split and merged into `new`, in row-major order."""
        wide: list[int] = []
        sizes: list[int] = []
        for before, after in _groups(old, new):
            differs = any(self.sizes[dim] > 1 for dim in before)
            wide += [old[dim] if differs else 1 for dim in before]
            sizes += [new[dim] if differs else 1 for dim in after]
        _refuse_large(2 * prod(wide))
        ends = np.broadcast_to(self.ends, (2, *wide)).reshape(2, *sizes)
        return replace(self, ends=_narrowed(ends))

    def put(self, source: Reach | None, dim: int, positions: Integers, length: int) -> Reach:
        """What was written over the `positions` along `dim`, of so many in all, sees what `source` saw."""
        blank = source or Reach(np.full((2, *self.sizes[:dim], 1, *self.sizes[dim + 1 :]), NOTHING))
        left, right = (np.broadcast_shapes(self.sizes[one], blank.sizes[one]) for one in _around(dim))
        shape = (2, *left, length, *right)
        _refuse_large(prod(shape))
        ends = np.broadcast_to(self.ends, shape).copy()
        ends[(slice(None),) * (1 + dim) + (positions,)] = blank.ends
        return Reach(_narrowed(ends), *self.marks(blank))

    def sees(self) -> bool:
        """Whether any position sees anything."""
        return bool((self.ends[0] < NOTHING).any())

    def marks(self, other: Reach) -> tuple[str, str]:
        """The names of the layers that made either of two see everything, and positions differ."""
        return self.whole or other.whole, self.uneven or other.uneven


def joined(reaches: Sequence[Reach], dimensions: int) -> Reach:
    """What several tensors see together, broadcast to so many dimensions."""
    first, *others = (reach.aligned(dimensions) for reach in reaches)
    for other in others:
        if other is not first:
            first = Reach(np.minimum(first.ends, other.ends), *first.marks(other))
    return first


def _around(dim: int) -> tuple[slice, slice]:
    return slice(None, dim), slice(dim + 1, None)


def _refuse_large(numbers: int) -> None:
    if numbers > LARGEST:
        raise CannotFollow(
            f"its rows and columns mix, and {numbers:,} numbers to say what each pixel sees are too many"
        )


def _narrowed(ends: Integers) -> Integers:
    """Size 1 wherever all along a dimension is the same."""
    for axis in range(1, ends.ndim):
        one = ends[(slice(None),) * axis + (slice(0, 1),)]
        if ends.shape[axis] > 1 and (ends == one).all():
            ends = one
    return ends


def _groups(old: Shape, new: Shape) -> Iterator[tuple[range, range]]:
    """Runs of dimensions, before and after a reshape, that hold the same elements."""
    starts = [(0, 0)]
    sums = [list(itertools.accumulate(shape, lambda a, b: a * b)) for shape in (old, new)]
    for i, product in enumerate(sums[0][:-1]):
        later = [j for j, other in enumerate(sums[1][:-1]) if other == product and j >= starts[-1][1]]
        if later:
            starts.append((i + 1, later[0] + 1))
    for (i, j), (k, m) in zip(starts, [*starts[1:], (len(old), len(new))], strict=True):
        yield range(i, k), range(j, m)
