"""Where pixels come from: coordinates from output to input pixels, their composition, and the one reading.

Coordinates are a (3, 3) float64 matrix on (y, x, 1), or a (2, H, W) float32 field of (y, x), one for each output pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yeastexp.sample import IGNORE
from yeastexp.transforms.basic import Size

Coordinates = np.ndarray | Tensor


@dataclass(frozen=True)
class Pixels:
    """Images of any sizes laid out flat, so that one gather reads windows from several of them at once.

    `values` (C, P) float32 and `labels` (L, P) integers, image i at `offsets[i]` with `sizes[i]`, row by row.
    """

    values: Tensor
    labels: Tensor
    offsets: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, images: Sequence[Tensor], labels: Sequence[Tensor]) -> Pixels:
        """From images (C, H, W) and their label planes (L, H, W)."""
        sizes = np.array([image.shape[-2:] for image in images], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))[:-1]])
        values = torch.cat([image.flatten(1) for image in images], dim=1)
        return cls(values, torch.cat([planes.flatten(1) for planes in labels], dim=1), offsets, sizes)

    @classmethod
    def stacked(cls, images: Tensor, labels: Tensor) -> Pixels:
        """From a batch (B, C, H, W) and its labels (B, H, W)."""
        count, _, height, width = images.shape
        offsets = np.arange(count) * height * width
        sizes = np.tile(np.array([height, width]), (count, 1))
        return cls(images.transpose(0, 1).flatten(1), labels.flatten()[None], offsets, sizes)

    def to(self, device: torch.device) -> Pixels:
        """The same pixels on a device."""
        return Pixels(self.values.to(device), self.labels.to(device), self.offsets, self.sizes)


def translation(y: float, x: float) -> np.ndarray:
    """The matrix that adds (y, x)."""
    return np.array([[1, 0, y], [0, 1, x], [0, 0, 1]], dtype=np.float64)


def grid(size: Size, device: torch.device | None = None) -> Tensor:
    """The field (2, H, W) that takes every pixel from its own place."""
    rows, columns = (torch.arange(n, dtype=torch.float32, device=device) for n in size)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


def field(coordinates: Coordinates, size: Size, device: torch.device | None = None) -> Tensor:
    """Coordinates as a field (2, H, W) for an output of `size`, on `device` if one is given."""
    if isinstance(coordinates, Tensor):
        return coordinates if device is None else coordinates.to(device)
    return _moved(coordinates, grid(size, device))


def compose(outer: Coordinates, inner: Coordinates, size: Size) -> Coordinates:
    """Coordinates of two steps as one: `outer` (of the later step, with output `size`) into `inner`'s output."""
    if isinstance(inner, np.ndarray):
        return inner @ outer if isinstance(outer, np.ndarray) else _moved(inner, outer)
    where = field(outer, size, inner.device)
    shift = inner - grid((inner.shape[1], inner.shape[2]), inner.device)
    pixels = Pixels.of([shift], [torch.zeros_like(shift[:1])])
    return where + _bilinear(pixels, np.zeros(1, np.int64), where[None])[0]


def _moved(matrix: np.ndarray, where: Tensor) -> Tensor:
    (a, b, c), (d, e, f) = matrix[:2].tolist()
    return torch.stack([a * where[0] + b * where[1] + c, d * where[0] + e * where[1] + f])


def read(pixels: Pixels, images: np.ndarray, coordinates: Sequence[Coordinates], size: Size) -> tuple[Tensor, Tensor]:
    """Values (B, C, h, w) and labels (B, L, h, w), each of the B outputs from its image through its coordinates.

    Exact indexing where all pixels fall on pixels, else bilinear values and nearest labels. Beyond the image, values
    are mirrored (the border pixel is not repeated) and labels are IGNORE.
    """
    matrices = [one for one in coordinates if isinstance(one, np.ndarray)]
    if len(matrices) == len(coordinates) and _on_pixels(stack := np.stack(matrices)):
        return _indexed(pixels, images, np.rint(stack).astype(np.int64), size)
    where = torch.stack([field(one, size, pixels.values.device) for one in coordinates])
    return _bilinear(pixels, images, where), _nearest(pixels, images, where)


def _on_pixels(matrices: np.ndarray) -> bool:
    """Whether every matrix is a signed permutation that takes whole pixels to whole pixels, or keeps each n-th."""
    whole = np.abs(matrices - np.rint(matrices)).max() < 1e-9
    straight = (matrices[:, 0, 1] == 0) & (matrices[:, 1, 0] == 0)
    turned = (matrices[:, 0, 0] == 0) & (matrices[:, 1, 1] == 0)
    return bool(whole and (straight | turned).all())


def _indexed(pixels: Pixels, images: np.ndarray, matrices: np.ndarray, size: Size) -> tuple[Tensor, Tensor]:
    """Reading by index: each output row and column fixes one of the two input axes."""
    sizes, device = pixels.sizes[images], pixels.values.device
    straight = matrices[:, 0, 1] == 0
    axes = (np.where(straight, 0, 1), np.where(straight, 1, 0))  # the input axis that rows, columns run along
    index, inside = pixels.offsets[images][:, None, None], np.ones((1, 1, 1), dtype=bool)
    batch = np.arange(len(images))
    for output_axis, axis in enumerate(axes):
        step, start, length = matrices[batch, axis, output_axis], matrices[batch, axis, 2], sizes[batch, axis]
        place = start[:, None] + step[:, None] * np.arange(size[output_axis])
        stride = np.where(axis == 0, sizes[:, 1], 1)[:, None]
        expand = (slice(None), slice(None), None) if output_axis == 0 else (slice(None), None, slice(None))
        index = index + (_mirrored(place, length[:, None]) * stride)[expand]
        inside = inside & ((place >= 0) & (place < length[:, None]))[expand]
    flat = torch.from_numpy(index).to(device)
    labels = _gather(pixels.labels, flat)
    if not inside.all():
        labels = labels.masked_fill(~torch.from_numpy(inside).to(device)[:, None], IGNORE)
    return _gather(pixels.values, flat), labels


def _mirrored(place: np.ndarray, length: np.ndarray) -> np.ndarray:
    period = np.maximum(2 * (length - 1), 1)
    place = np.mod(place, period)
    return np.asarray(np.minimum(place, np.abs(period - place)) * (length > 1))


def _gather(planes: Tensor, index: Tensor) -> Tensor:
    """Planes (N, P) at index (B, h, w) as (B, N, h, w)."""
    taken = planes.index_select(1, index.flatten()).view(-1, *index.shape)
    return taken.transpose(0, 1).contiguous()


def _bilinear(pixels: Pixels, images: np.ndarray, where: Tensor) -> Tensor:
    """Values (B, C, h, w) at fields (B, 2, h, w)."""
    low = where.floor()
    high_weight = where - low
    low = low.long()
    total = torch.zeros((), device=where.device)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = torch.ones((), device=where.device)
        for axis, upper in enumerate(corner):
            weight = weight * (high_weight[:, axis] if upper else 1 - high_weight[:, axis])
        place = low + low.new_tensor(corner)[None, :, None, None]
        total = total + weight[:, None] * _gather(pixels.values, _flat(pixels, images, place)[0])
    return total


def _nearest(pixels: Pixels, images: np.ndarray, where: Tensor) -> Tensor:
    """Labels (B, L, h, w) at fields (B, 2, h, w)."""
    flat, inside = _flat(pixels, images, torch.floor(where + 0.5).long())
    return _gather(pixels.labels, flat).masked_fill(~inside[:, None], IGNORE)


def _flat(pixels: Pixels, images: np.ndarray, place: Tensor) -> tuple[Tensor, Tensor]:
    """The flat index of whole-pixel places (B, 2, h, w), mirrored at the border, and whether they lie inside."""
    length = torch.from_numpy(pixels.sizes[images]).to(place.device)[:, :, None, None]
    inside = ((place >= 0) & (place < length)).all(dim=1)
    period = (2 * (length - 1)).clamp_min(1)
    folded = place.remainder(period)
    folded = torch.minimum(folded, (period - folded).abs()) * (length > 1)
    offset = torch.from_numpy(pixels.offsets[images]).to(place.device)[:, None, None]
    return offset + folded[:, 0] * length[:, 1] + folded[:, 1], inside
