"""Whole images through a net in pieces, each with as much around it as its outputs see.

Pieces repeat what the whole image gives: they begin at multiples of the net's jump, have margins as wide as its
receptive field, and end where the image does. Nothing is blended, unless every output sees the whole image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from yeastexp.data.pieces import Pieces, Size, shifted
from yeastexp.errors import UserError
from yeastexp.nets.receptive_field import ReceptiveField, receptive_field, trace
from yeastexp.system import full_precision, memory

SAMPLE = 256
"""Pixels of a side of the image on which a net's memory is measured."""

SHARE = 4
"""A piece may take one in so many bytes that are free."""

MOST_ON_CPU, MOST_ON_GPU = 1 << 27, 1 << 33
"""Bytes of a piece's activations. On a CPU, larger ones take longer: their memory comes fresh from the system."""

OVERLAP = 4
"""Pieces that can only be blended overlap by one in so many of their pixels."""

BLENDED = 512
"""Pixels of their sides, if memory does not ask for fewer."""

Margins = tuple[int, int]
"""Pixels before and after."""
Turn = tuple[bool, bool, bool]
"""Whether rows are mirrored, columns are mirrored, and then rows and columns exchanged."""

DIHEDRAL: tuple[Turn, ...] = tuple(itertools.product((False, True), (False, True), (False, True)))
"""The eight ways to lay an image on its grid."""


@dataclass(frozen=True)
class Tiling:
    """A model on images that are too large for it to be run on at once."""

    model: nn.Module
    jump: int
    margins: tuple[Margins, Margins]
    """Of height and width."""
    bytes_per_pixel: float
    """Of the activations that are held at once."""
    inexact: str = ""
    """Why no pieces give what the whole image gives, where that is so."""

    @classmethod
    def of(cls, model: nn.Module, channels: int, pixel: float | None = None) -> Tiling:
        """What pieces a model needs, read off its operators; `pixel` has the bytes of each pixel, where known."""
        pixel = pixel or bytes_per_pixel(model, channels)
        try:
            found = receptive_field(model, channels, (SAMPLE, SAMPLE))
        except UserError as error:
            return cls(model, 1, ((0, 0), (0, 0)), pixel, inexact=str(error))
        if found.tiles and found.shape[-2:] != (SAMPLE, SAMPLE):
            return cls(model, found.cumulative_stride, ((0, 0), (0, 0)), pixel, inexact="its output is of another size")
        margins = tuple((max(axis.margins[0], 0), max(axis.margins[1], 0)) for axis in found.axes)
        return cls(model, found.cumulative_stride, margins, pixel, _why_not(found))  # type: ignore[arg-type]

    def tile(self, size: Size, device: torch.device, side: int | None = None) -> Size:
        """Height and width of the pieces that make an image, multiples of the jump.

        Their sides where they are given; else those that cost the fewest pixels, margins included, in the memory there.
        """
        unit = self.jump
        if self.inexact:
            most = math.isqrt(int(at_hand(device) / self.bytes_per_pixel))
            wanted = side or min(BLENDED, most)
            return (_multiple(wanted, unit), _multiple(wanted, unit))
        if side:
            return _multiple(side, unit), _multiple(side, unit)
        pixels = at_hand(device) / self.bytes_per_pixel
        return min(self._tiles(size, unit, pixels), key=lambda tile: self._cost(size, tile))

    def _tiles(self, size: Size, unit: int, pixels: float) -> Iterator[Size]:
        """For each number of rows of pieces the widest pieces that fit; the smallest ones where none fit."""
        found = False
        width = _multiple(size[1], unit)
        for height in _sides(size[0], unit):
            room = int(pixels // (height + sum(self.margins[0]) + 2 * self.jump)) - sum(self.margins[1]) - 2 * self.jump
            if room >= unit:
                found = True
                across = -(-size[1] // (min(room, width) // unit * unit))
                yield height, _multiple(-(-size[1] // across), unit)
        if not found:
            yield unit, unit

    def _cost(self, size: Size, tile: Size) -> tuple[int, int]:
        """Pixels that the model is run on, and the number of pieces."""
        spans = []
        for axis in range(2):
            pieces = [self._needed(axis, piece, size[axis]) for piece in _cut(size[axis], tile[axis])]
            spans.append((sum(one.stop - one.start for one in pieces), len(pieces)))
        return spans[0][0] * spans[1][0], spans[0][1] * spans[1][1]

    def _needed(self, axis: int, wanted: slice, length: int) -> slice:
        """What the model has to be given for some rows or columns of its output."""
        before, after = self.margins[axis]
        stop = -(-(wanted.stop + after) // self.jump) * self.jump
        if stop >= length and length % self.jump:
            before += self.jump  # a model that extends images to multiples may do so by mirroring
        return slice(max(0, (wanted.start - before) // self.jump * self.jump), min(stop, length))

    def logits(self, image: Pieces, tile: Size) -> Pieces:
        """Logits (K, H, W) on an image (C, H, W); `tile` says how large the pieces are that blend."""
        return self._blended(image, tile[0]) if self.inexact else self._exact(image)

    def _exact(self, image: Pieces) -> Pieces:
        def cut(rows: slice, columns: slice) -> Tensor:
            needed = [self._needed(axis, one, image.size[axis]) for axis, one in enumerate((rows, columns))]
            top, left = rows.start - needed[0].start, columns.start - needed[1].start
            found = run(self.model, image.cut(*needed))
            return found[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]

        return Pieces(image.size, cut)

    def _blended(self, image: Pieces, side: int) -> Pieces:
        lines = [Line.of(length, side, self.jump) for length in image.size]
        windows = _Windows(self.model, image, lines)
        return Pieces(image.size, windows.cut)


def _why_not(found: ReceptiveField) -> str:
    """Why a model's pieces cannot give what the whole image gives; nothing where they can."""
    for axis in found.axes:
        if axis.global_layer:
            return f"every output sees the whole image, for its layer {axis.global_layer}"
        if axis.shift_variant_layer:
            return f"its layer {axis.shift_variant_layer} does not treat all positions alike"
    return ""


def _multiple(length: int, unit: int) -> int:
    return max(1, -(-length // unit)) * unit


def _sides(length: int, unit: int) -> list[int]:
    """The different sides of pieces that cut a length into 1, 2, 3, … of them."""
    counts = range(1, -(-length // unit) + 1)
    return list(dict.fromkeys(_multiple(-(-length // count), unit) for count in counts))


def _cut(length: int, side: int) -> Iterator[slice]:
    return (slice(first, min(first + side, length)) for first in range(0, length, side))


def cells(size: Size, tile: Size, first: int = 0) -> Iterator[tuple[slice, slice]]:
    """The pieces of an image row by row, from the row `first` on."""
    for rows in _cut(size[0] - first, tile[0]):
        for columns in _cut(size[1], tile[1]):
            yield slice(first + rows.start, first + rows.stop), columns


def assembled(logits: Pieces, tile: Size) -> Tensor:
    """All of them (K, H, W), piece by piece."""
    made: Tensor | None = None
    for rows, columns in cells(logits.size, tile):
        found = logits.cut(rows, columns)
        if made is None:
            made = found.new_empty((len(found), *logits.size))
        made[:, rows, columns] = found
    assert made is not None, "an image has a pixel"
    return made


def run(model: nn.Module, image: Tensor) -> Tensor:
    """Logits (K, H, W) on an image (C, H, W) at once, without gradients; UserError where the model cannot take it."""
    try:
        with torch.no_grad(), full_precision.in_full(image.device):
            found: Tensor = model(image[None])[0]
    except (RuntimeError, ValueError, IndexError) as error:
        if memory.is_exhausted(error):
            raise
        channels, height, width = image.shape
        if trace(model, channels, (height, width)).failure:
            receptive_field(model, channels, (height, width))  # says which layer cannot, and which size would do
        raise
    return found


def at_once(model: nn.Module, image: Pieces) -> Pieces:
    """Logits on an image that the model takes as a whole, again for each piece that is asked for."""
    return Pieces(image.size, lambda rows, columns: run(model, image.whole)[:, rows, columns])


def averaged(image: Pieces, logits: Callable[[Pieces], Pieces]) -> Pieces:
    """The logarithm of the mean probabilities of an image in the eight ways to lay it on its grid."""
    views = [turned(logits(turned(image, turn)), inverse(turn)) for turn in DIHEDRAL]

    def cut(rows: slice, columns: slice) -> Tensor:
        total = views[0].cut(rows, columns).softmax(dim=0)
        for view in views[1:]:
            total += view.cut(rows, columns).softmax(dim=0)
        return (total / len(views)).clamp_min(torch.finfo(total.dtype).tiny).log()

    return Pieces(image.size, cut)


def turned(image: Pieces, turn: Turn) -> Pieces:
    """An image with its rows or columns mirrored, and then maybe exchanged."""
    up, left, exchanged = turn
    height, width = image.size

    def cut(rows: slice, columns: slice) -> Tensor:
        if exchanged:
            rows, columns = columns, rows
        source = _mirrored(rows, height) if up else rows, _mirrored(columns, width) if left else columns
        piece = image.cut(*source).flip([dim for dim, mirrored in ((1, up), (2, left)) if mirrored])
        return piece.transpose(1, 2).contiguous() if exchanged else piece

    return Pieces((width, height) if exchanged else (height, width), cut)


def inverse(turn: Turn) -> Turn:
    """What undoes a turn."""
    up, left, exchanged = turn
    return (left, up, True) if exchanged else turn


def _mirrored(one: slice, length: int) -> slice:
    return slice(length - one.stop, length - one.start)


@dataclass(frozen=True)
class Line:
    """Windows along one axis, and the weight of each of their pixels: those of all windows on a pixel make 1."""

    windows: tuple[slice, ...]
    weights: tuple[Tensor, ...]

    @classmethod
    def of(cls, length: int, side: int, jump: int) -> Line:
        """Windows that overlap and begin at multiples of the jump; the last one ends where the image does."""
        if length <= side:
            return cls((slice(0, length),), (torch.ones(length),))
        step = max(jump, (side - side // OVERLAP) // jump * jump)
        last = -(-(length - side) // jump) * jump
        starts = sorted({*range(0, last, step), last})
        windows = tuple(slice(start, min(start + side, length)) for start in starts)
        ramp = max(1, side // OVERLAP)
        ramps = []
        for one in windows:
            places = torch.arange(one.start, one.stop)
            before = places - one.start + 1 if one.start else torch.full_like(places, ramp)
            after = one.stop - places if one.stop < length else torch.full_like(places, ramp)
            ramps.append(torch.minimum(before, after).clamp_max(ramp).float())
        total = torch.zeros(length)
        for one, weight in zip(windows, ramps, strict=True):
            total[one] += weight
        return cls(windows, tuple(w / total[one] for one, w in zip(windows, ramps, strict=True)))

    def on(self, wanted: slice) -> Iterator[int]:
        """Those that some rows or columns lie in."""
        return (i for i, one in enumerate(self.windows) if one.start < wanted.stop and one.stop > wanted.start)


@dataclass
class _Windows:
    """What a model gives on windows, kept as long as pieces are asked for row by row."""

    model: nn.Module
    image: Pieces
    lines: list[Line]
    kept: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def logits(self, i: int, j: int) -> Tensor:
        if (i, j) not in self.kept:
            self.kept = {place: found for place, found in self.kept.items() if abs(place[0] - i) < 2}
            self.kept[i, j] = run(self.model, self.image.cut(self.lines[0].windows[i], self.lines[1].windows[j]))
        return self.kept[i, j]

    def cut(self, rows: slice, columns: slice) -> Tensor:
        """A piece (K, h, w) of the windows' weighted mean."""
        total: Tensor | None = None
        for i, j in itertools.product(self.lines[0].on(rows), self.lines[1].on(columns)):
            found = self.logits(i, j)
            if total is None:
                total = found.new_zeros((len(found), rows.stop - rows.start, columns.stop - columns.start))
            parts = [
                (slice(max(wanted.start, one.start), min(wanted.stop, one.stop)), one, weight)
                for wanted, one, weight in (
                    (rows, self.lines[0].windows[i], self.lines[0].weights[i]),
                    (columns, self.lines[1].windows[j], self.lines[1].weights[j]),
                )
            ]
            inner = [shifted(part, -one.start) for part, one, _ in parts]
            down, right = (weight[one].to(found.device) for one, (_, _, weight) in zip(inner, parts, strict=True))
            into = [shifted(part, -wanted.start) for (part, _, _), wanted in zip(parts, (rows, columns), strict=True)]
            total[:, into[0], into[1]] += found[:, inner[0], inner[1]] * (down[:, None] * right)
        assert total is not None, "windows lie on every pixel"
        return total


# Memory


class _Held(TorchDispatchMode):
    """The bytes of all tensors that operators made and that are held at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = overload(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self.sizes[StorageWeakRef(one.untyped_storage())] = one.untyped_storage().nbytes()
        self.sizes = {key: size for key, size in self.sizes.items() if not key.expired()}
        self.peak = max(self.peak, sum(self.sizes.values()))
        return made


def bytes_per_pixel(model: nn.Module, channels: int) -> float:
    """Bytes of activations that a model holds at once for each pixel of an image."""
    return peak_bytes(model, (channels, SAMPLE, SAMPLE)) / SAMPLE**2


def peak_bytes(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Bytes of activations that a model's forward pass on an image (C, H, W) holds at most; a guess where it refuses.

    It is run without pixels.
    """
    state = {
        name: one.detach().to("meta")
        for name, one in itertools.chain(
            model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
        )
    }
    pixels = torch.empty(1, *image, device="meta")
    try:
        with torch.no_grad(), torch.device("meta"), _Held() as held:
            torch.func.functional_call(model, state, (pixels,), tie_weights=False)
    except Exception:  # whatever a model's forward raises without pixels, it may well run with them
        return 1024 * math.prod(image[1:])
    return int(held.peak)


def at_hand(device: torch.device) -> int:
    """Bytes that a piece's activations may take on a device, by what is free there."""
    if device.type == "cuda":
        return min(MOST_ON_GPU, memory.free(device) // SHARE)
    return min(MOST_ON_CPU, memory.free(device) // SHARE)
