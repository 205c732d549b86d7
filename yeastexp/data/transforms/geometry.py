"""Geometry of transforms: maps from output to input pixels, their composition, and resampling through them.

Coordinates are such a map: a (3, 3) float64 matrix on (y, x, 1), a (2, H, W) float32 field that holds the input (y, x)
of every output pixel, or a field followed by a matrix (`Followed`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yeastexp.data.transforms.base import Size
from yeastexp.randomness import sent
from yeastexp.sample import IGNORE
from yeastexp.tasks.shares import as_floats

AT_ONCE = 2**16
"""Output pixels that a CPU resamples at a time, so that what it computes on the way fits its caches."""


@dataclass(frozen=True)
class Followed:
    """A field (2, H, W) and the (3, 3) matrix applied to the places it leads to.

    `box` (2, 2) holds the smallest and the largest place of the field on each axis, before the matrix.
    """

    field: Tensor
    box: np.ndarray
    matrix: np.ndarray

    @classmethod
    def by_nothing(cls, field: Tensor) -> Followed:
        """The field followed by the identity; its box is computed from its values, which waits for a GPU."""
        # Reducing a whole plane is about ten times as fast on a CPU as `aminmax` along a dimension.
        box = torch.stack([torch.stack(plane.aminmax()) for plane in field])
        return cls(field, box.cpu().double().numpy(), np.eye(3))


Coordinates = np.ndarray | Tensor | Followed


@dataclass(frozen=True)
class Stacked:
    """The coordinates of a batch: matrices (B, 3, 3), behind a field (B, 2, H, W) with boxes (B, 2, 2), if any."""

    matrices: np.ndarray
    field: Tensor | None = None
    boxes: np.ndarray | None = None

    @classmethod
    def of(cls, coordinates: Batched) -> Stacked | None:
        """Coordinates of a batch as one object; None if they are a list that holds a field."""
        if isinstance(coordinates, Stacked):
            return coordinates
        matrices = [matrix for matrix in coordinates if isinstance(matrix, np.ndarray)]
        return cls(np.stack(matrices)) if len(matrices) == len(coordinates) else None

    def part(self, places: Sequence[int]) -> Stacked:
        """The coordinates of some patches; all of them if there is a field, which is only made for whole batches."""
        return self if self.field is not None else Stacked(self.matrices[places])

    def __getitem__(self, part: slice) -> Stacked:
        assert self.field is None or part == slice(None), "fields are read at once"
        return Stacked(self.matrices[part], self.field, self.boxes)


Batched = Sequence[Coordinates] | Stacked


@dataclass(frozen=True)
class Pixels:
    """Images of any sizes flattened into one axis, so that one gather reads patches from several of them at once.

    `values` (C, P) float32 and `labels` (L, P) integers hold image i from `offsets[i]` on, row by row, with height and
    width `sizes[i]`. `soft` (S, P) holds further channels in the 16 bits of `yeastexp.tasks.shares`; they are read as
    floats after the other values.
    """

    values: Tensor
    labels: Tensor
    offsets: np.ndarray
    sizes: np.ndarray
    soft: Tensor | None = None

    @classmethod
    def of(cls, images: Sequence[Tensor], labels: Sequence[Tensor]) -> Pixels:
        """From images (C, H, W) and their label planes (L, H, W)."""
        sizes = np.array([image.shape[-2:] for image in images], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))[:-1]])
        values = torch.cat([image.flatten(1) for image in images], dim=1)
        return cls(values, torch.cat([planes.flatten(1) for planes in labels], dim=1), offsets, sizes)

    @classmethod
    def stacked(cls, images: Tensor, labels: Tensor) -> Pixels:
        """From a batch (B, C, H, W) and its label planes (B, L, H, W)."""
        count, _, height, width = images.shape
        offsets = np.arange(count) * height * width
        sizes = np.tile(np.array([height, width]), (count, 1))
        return cls(images.transpose(0, 1).flatten(1), labels.transpose(0, 1).flatten(1), offsets, sizes)

    @property
    def index_dtype(self) -> torch.dtype:
        """The smallest integer type that can index every pixel: shorter indices are gathered faster."""
        return torch.int32 if self.values.shape[1] < 2**31 else torch.int64

    def to(self, device: torch.device) -> Pixels:
        """The same pixels on a device."""
        soft = None if self.soft is None else self.soft.to(device)
        return Pixels(self.values.to(device), self.labels.to(device), self.offsets, self.sizes, soft)

    def read(self, part: Callable[[Tensor], Tensor]) -> Tensor:
        """Values (B, C + S, h, w), where `part` reads (B, N, h, w) from planes (N, P)."""
        values = part(self.values)
        return values if self.soft is None else torch.cat([values, as_floats(part(self.soft))], dim=1)


def translation(y: float, x: float) -> np.ndarray:
    """The (3, 3) matrix that adds (y, x)."""
    return np.array([[1, 0, y], [0, 1, x], [0, 0, 1]], dtype=np.float64)


def identities(count: int) -> np.ndarray:
    """The (3, 3) identity, B times: (B, 3, 3)."""
    return np.eye(3)[None].repeat(count, axis=0)


def translations(shifts: np.ndarray) -> np.ndarray:
    """The matrices (B, 3, 3) that add shifts (B, 2)."""
    matrices = identities(len(shifts))
    matrices[:, :2, 2] = shifts
    return matrices


def places(size: Size, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """The row numbers (H, 1) and the column numbers (1, W) of an image, float32."""
    rows, columns = (torch.arange(n, dtype=torch.float32, device=device) for n in size)
    return rows[:, None], columns[None, :]


def grid(size: Size, device: torch.device | None = None) -> Tensor:
    """The identity as a field (2, H, W)."""
    return torch.stack(torch.broadcast_tensors(*places(size, device)))


def field(coordinates: Coordinates, size: Size, device: torch.device | None = None) -> Tensor:
    """Coordinates as a field (2, H, W) for an output of `size`, on `device` if one is given."""
    if isinstance(coordinates, Tensor):
        return coordinates if device is None else coordinates.to(device)
    if isinstance(coordinates, Followed):
        matrix, (rows, columns) = coordinates.matrix, field(coordinates.field, size, device)
    else:
        matrix, (rows, columns) = coordinates, places(size, device)
    places_read = torch.empty(2, *size, device=rows.device)
    for plane, (y, x, start) in zip(places_read, matrix[:2].tolist(), strict=True):
        torch.add(y * rows, x * columns, out=plane).add_(start)
    return places_read


def fields(coordinates: Batched, size: Size, device: torch.device) -> Tensor:
    """The coordinates of a batch as fields (B, 2, H, W) for outputs of `size`."""
    if (stacked := Stacked.of(coordinates)) is None:
        return torch.stack([field(item, size, device) for item in coordinates])  # type: ignore[union-attr]
    numbers, row, column = sent(
        device, stacked.matrices[:, :2].astype(np.float32), *(np.arange(n, dtype=np.float32) for n in size)
    )
    y, x, start = numbers[..., None, None].unbind(2)
    rows, columns = (row[:, None], column[None]) if stacked.field is None else stacked.field[:, :, None].unbind(1)
    return torch.add(y * rows, x * columns).add_(start)


def compose(outer: Coordinates, inner: Coordinates, size: Size) -> Coordinates:
    """Coordinates of two steps as one map to the input of `inner`.

    `outer` belongs to the later step: it takes pixels of the output, of `size`, to the output of `inner`.
    """
    # An inner matrix is multiplied into the one that follows the outer field, so nothing is interpolated; only an inner
    # field has to be looked up where `outer` leads.
    if isinstance(inner, Followed):
        return compose(compose(outer, inner.field, size), inner.matrix, size)
    if isinstance(inner, Tensor):
        return _through(outer, inner, size)
    if isinstance(outer, np.ndarray):
        return np.asarray(inner @ outer)
    first = outer if isinstance(outer, Followed) else Followed.by_nothing(outer)
    return Followed(first.field, first.box, inner @ first.matrix)


def _through(outer: Coordinates, inner: Tensor, size: Size) -> Tensor:
    """The field `inner` looked up, bilinearly, at the places that `outer` leads to."""
    height, width = inner.shape[1:]
    if isinstance(outer, np.ndarray) and size == (height, width) and np.array_equal(outer, np.eye(3)):
        return inner
    # Shifts are interpolated, not places. Beyond its border a field is mirrored like an image: a mirrored shift still
    # starts from where `outer` leads, but a mirrored place would lie inside the field again.
    shift = inner - grid((height, width), inner.device)
    pixels = Pixels.of([shift], [shift.new_empty(0, height, width)])
    return field(outer, size, inner.device) + _between(pixels, np.zeros(1, np.int64), [outer], size)[0][0]


def compose_together(outer: Stacked, shifts: Tensor, furthest: np.ndarray, size: Size) -> Stacked:
    """`compose` for a batch whose inner step is a field, given as `shifts` (B, 2, H, W) from each pixel's own place.

    `furthest` (B, 2) bounds the absolute shifts of each sample on each axis.
    """
    where, own = fields(outer, size, shifts.device), identities(len(shifts))
    if outer.field is None and size == tuple(shifts.shape[2:]) and np.array_equal(outer.matrices, own):
        where += shifts
    else:
        pixels = Pixels.stacked(shifts, shifts.new_empty(len(shifts), 0, *shifts.shape[2:]))
        where += _between(pixels, np.arange(len(shifts)), outer, size)[0]
    # A bilinear mean is never beyond `furthest` either. The box from this bound is wider than the exact one, which is
    # known only to the GPU: to ask for it would make the host wait.
    return Stacked(own, where, extents(outer, size) + np.stack([-furthest, furthest], axis=-1))


def extent(coordinates: Coordinates, size: Size) -> np.ndarray:
    """Bounds (2, 2) of the places that an output of `size` is read from: smallest and largest on each axis."""
    if isinstance(coordinates, Tensor):
        return Followed.by_nothing(coordinates).box
    if isinstance(coordinates, Followed):
        box, matrix = coordinates.box, coordinates.matrix
    else:
        box, matrix = np.array([[0.0, n - 1.0] for n in size]), coordinates
    return _reached(matrix, box)


def extents(coordinates: Batched, size: Size) -> np.ndarray:
    """`extent` of each coordinates of a batch, (B, 2, 2)."""
    if (stacked := Stacked.of(coordinates)) is None:
        return np.stack([extent(item, size) for item in coordinates])  # type: ignore[union-attr]
    whole = np.array([[0.0, n - 1.0] for n in size])
    return _reached(stacked.matrices, whole if stacked.boxes is None else stacked.boxes)


def _reached(matrix: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The bounds (…, 2, 2) of what matrices (…, 3, 3) make of boxes (…, 2, 2).

    A linear function is smallest on a box where each of its terms is, so no corner has to be tried. For a field, whose
    places need not fill their box, the bounds may be too wide.
    """
    ends = matrix[..., :2, :2, None] * box[..., None, :, :]
    both = ends.min(axis=-1).sum(axis=-1), ends.max(axis=-1).sum(axis=-1)
    return np.asarray(np.stack(both, axis=-1) + matrix[..., :2, 2:])


def read(pixels: Pixels, images: np.ndarray, coordinates: Batched, size: Size) -> tuple[Tensor, Tensor]:
    """Values (B, C, h, w) and labels (B, L, h, w): output b is read from `images[b]` through its coordinates.

    Pixels are copied if every output pixel of the batch falls on an input pixel; otherwise values are bilinear and
    labels those of the nearest pixel. Beyond the image, values are mirrored (the border pixel is not repeated) and
    labels are IGNORE.
    """
    stacked = Stacked.of(coordinates)
    if stacked is not None and stacked.field is None and _on_pixels(stacked.matrices):
        whole = np.rint(stacked.matrices).astype(np.int64)
        return _sliced(pixels, images, whole, size) or _indexed(pixels, images, whole, size)
    if pixels.values.device.type != "cpu":
        return _between(pixels, images, coordinates, size)
    # No output depends on another one, so the cut into parts changes no bit.
    count = max(1, AT_ONCE // math.prod(size))
    parts = [slice(first, first + count) for first in range(0, len(images), count)]
    values, labels = zip(*(_between(pixels, images[part], coordinates[part], size) for part in parts), strict=True)
    return torch.cat(values), torch.cat(labels)


def _on_pixels(matrices: np.ndarray) -> bool:
    """Whether every matrix is a signed permutation that takes whole pixels to whole pixels, or keeps each n-th."""
    whole = np.abs(matrices - np.rint(matrices)).max() < 1e-9
    straight = (matrices[:, 0, 1] == 0) & (matrices[:, 1, 0] == 0)
    turned = (matrices[:, 0, 0] == 0) & (matrices[:, 1, 1] == 0)
    return bool(whole and (straight | turned).all())


def _sliced(pixels: Pixels, images: np.ndarray, matrices: np.ndarray, size: Size) -> tuple[Tensor, Tensor] | None:
    """Read by strided slices; None if an output reaches beyond its image, and on a GPU.

    A CPU copies slices far faster than it gathers pixels.
    """
    if pixels.values.device.type != "cpu":
        return None
    layouts = []
    for matrix, image in zip(matrices.tolist(), images.tolist(), strict=True):
        bounds, begin = pixels.sizes[image].tolist(), int(pixels.offsets[image])
        strides, mirrored = [], []
        for output_axis, length in enumerate(size):
            axis = output_axis if matrix[0][0] else 1 - output_axis
            step, start = matrix[axis][output_axis], matrix[axis][2]
            low, high = sorted((start, start + step * (length - 1)))
            if low < 0 or high >= bounds[axis]:
                return None
            stride = 1 if axis else bounds[1]
            begin += low * stride
            strides.append(abs(step) * stride)
            if step < 0:
                mirrored.append(1 + output_axis)
        layouts.append((begin, strides, mirrored))
    return pixels.read(lambda planes: _laid_out(planes, layouts, size)), _laid_out(pixels.labels, layouts, size)


def _laid_out(planes: Tensor, layouts: Sequence[tuple[int, list[int], list[int]]], size: Size) -> Tensor:
    """Outputs (B, N, h, w) of planes (N, P) from the first pixel, strides and flipped axes of each.

    PyTorch has no negative strides, so mirrored axes are flipped afterwards. `as_strided` counts from the start of the
    storage, not of the tensor; `stack` copies, so that no output shares memory with the images.
    """
    count, apart = len(planes), planes.stride(0)
    outputs = []
    for begin, strides, mirrored in layouts:
        part = planes.as_strided((count, *size), (apart, *strides), planes.storage_offset() + begin)
        outputs.append(part.flip(mirrored) if mirrored else part)
    return torch.stack(outputs)


def _indexed(pixels: Pixels, images: np.ndarray, matrices: np.ndarray, size: Size) -> tuple[Tensor, Tensor]:
    """Read by index: each output row and each output column fixes one of the two input axes.

    So the host works out h + w numbers a patch in place of h * w, mirroring included, and the device adds them up.
    """
    sizes, device = pixels.sizes[images], pixels.values.device
    straight, batch = matrices[:, 0, 1] == 0, np.arange(len(images))
    index, known = [], []
    for output_axis, axis in enumerate((np.where(straight, 0, 1), np.where(straight, 1, 0))):  # the input axis of each
        step, start = matrices[batch, axis, output_axis], matrices[batch, axis, 2]
        place = start[:, None] + step[:, None] * np.arange(size[output_axis])
        last = sizes[batch, axis][:, None] - 1
        folded = _mirrored(place, last)
        known.append(folded == place)
        index.append(folded * np.where(axis == 0, sizes[:, 1], 1)[:, None])
    index[0] += pixels.offsets[images][:, None]
    numbers = [*(item.astype(_whole(pixels)) for item in index), *(~inside for inside in known)]
    row, column, *beyond = sent(device, *numbers)
    flat = row[:, :, None] + column[:, None, :]
    labels = _gather(pixels.labels, flat)
    # `known` lies on the host, so a GPU is not waited for.
    if not all(inside.all() for inside in known):
        labels.masked_fill_((beyond[0][:, :, None] | beyond[1][:, None, :])[:, None], IGNORE)
    return pixels.read(lambda planes: _gather(planes, flat)), labels


def _between(pixels: Pixels, images: np.ndarray, coordinates: Batched, size: Size) -> tuple[Tensor, Tensor]:
    """Read bilinear values and nearest labels.

    If any output reads beyond its border, all images are first copied with a mirrored border as wide as they are read,
    so that no index has to be clamped or mirrored pixel by pixel. Whether that is needed is told by the extents of the
    coordinates: looking at a field itself would make the host wait for a GPU.
    """
    boxes = extents(coordinates, size)
    # One pixel more on each side: fields are rounded to float32, and a place on the last pixel still reads the pixel
    # after it, with weight 0.
    first, last = np.floor(boxes[..., 0]) - 1, np.ceil(boxes[..., 1]) + 1
    corners = np.zeros((len(images), 2), np.int64)
    if (first < 0).any() or (last >= pixels.sizes[images]).any():
        corners, (height, width) = first.astype(np.int64), ((last - first).max(axis=0) + 1).astype(np.int64).tolist()
        matrices = np.stack([translation(*corner) for corner in corners.tolist()]).astype(np.int64)
        pixels = Pixels.stacked(*_indexed(pixels, images, matrices, (height, width)))
        images = np.arange(len(images))
    where = fields(coordinates, size, pixels.values.device)
    low = where.floor()
    share = where.sub_(low)
    rows, columns = low.to(pixels.index_dtype).unbind(1)
    widths = pixels.sizes[images, 1]
    # The coordinates still count from the corner of the image, so the copy's own corner is taken off the offsets.
    begins = pixels.offsets[images] - corners[:, 0] * widths - corners[:, 1]
    beyond = np.stack([0 * widths, 0 * widths + 1, widths, widths + 1])
    numbers = sent(rows.device, *(item.astype(_whole(pixels)) for item in (begins, widths, beyond)))
    begin, across, steps = (item[..., None, None] for item in numbers)
    here = (rows * across).add_(columns).add_(begin)
    labels = _nearest(pixels.labels, here, across, share)
    if rows.device.type == "cpu":
        return pixels.read(lambda planes: _bilinear(planes, here, across, share)), labels
    places = here + steps
    return pixels.read(lambda planes: _bilinear_at_once(planes, places, share)), labels


def _whole(pixels: Pixels) -> np.dtype[Any]:
    return np.dtype(str(pixels.index_dtype).removeprefix("torch."))


def _bilinear(planes: Tensor, here: Tensor, width: Tensor, share: Tensor) -> Tensor:
    """Planes (N, P) read bilinearly as (B, N, h, w), `share` (B, 2, h, w) of the way down and right from `here`.

    `here` (B, h, w) indexes the pixel above and to the left, `width` is that of each image.
    """
    shares = 1 - share, share
    total: Tensor | None = None
    for down, right in itertools.product((0, 1), repeat=2):
        # 16-bit planes become floats before they are weighted, as their marker of unknown pixels must turn into NaN
        # and not be averaged with shares. Only pixels that are read are converted.
        taken = as_floats(_gather(planes, here + (down * width + right) if down or right else here))
        taken *= (shares[down][:, 0] * shares[right][:, 1])[:, None]
        total = taken if total is None else total.add_(taken)
    assert total is not None
    return total


def _bilinear_at_once(planes: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """`_bilinear` from the indices (4, B, h, w) of all four pixels, in fewer kernels, for a GPU.

    On a CPU, four times the pixels would not fit the caches that `AT_ONCE` is made for.
    """
    shares = torch.stack([1 - share, share])
    weights = (shares[:, None, :, 0] * shares[None, :, :, 1]).flatten(0, 1)
    taken = as_floats(planes.index_select(1, index.flatten())).view(len(planes), *index.shape).mul_(weights)
    # Added one by one in the order of `_bilinear`, so that a CPU and a GPU round alike; `sum` may take any order.
    first, *others = taken.unbind(1)
    total = first
    for part in others:
        total = total + part
    return total.transpose(0, 1).contiguous()


def _nearest(planes: Tensor, here: Tensor, width: Tensor, share: Tensor) -> Tensor:
    """Planes (N, P) as (B, N, h, w) by the nearest pixel; from half the way on, that is the next one.

    `round` would send halves to even rows and columns, so that a label would depend on where its image begins.
    """
    down, right = (share >= 0.5).unbind(1)
    return _gather(planes, (down * width).add_(right).add_(here))


def _mirrored(place: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Whole places folded into 0 to `last`, by mirroring at the first and at the last pixel as often as it takes."""
    return np.asarray(last - np.abs(last - place % np.maximum(2 * last, 1)))


def _gather(planes: Tensor, index: Tensor) -> Tensor:
    """Planes (N, P) at index (B, h, w) as (B, N, h, w)."""
    # About twice as fast on a CPU as planes[:, index].
    taken = planes.index_select(1, index.flatten()).view(len(planes), *index.shape)
    return taken.transpose(0, 1).contiguous()
