"""Whole images through a model in tiles, each with as much around it as its outputs depend on.

Tiles give what the whole image gives: they begin at multiples of the model's stride, have margins as wide as its
receptive field, and end where the image does. That they do is proven by running some of them on a small image, before
the first large one. They are blended only if no margin would do, as with a layer whose outputs depend on the whole
image.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from yeastexp.data.pieces import Pieces, Size, shifted
from yeastexp.errors import UserError, in_one_line
from yeastexp.nets import attributes
from yeastexp.nets.receptive_field import ReceptiveField, receptive_field, trace
from yeastexp.system import full_precision, memory

SAMPLE = 256
"""Pixels of a side of the image on which a model's memory and receptive field are measured."""

SHARE = 4
"""A tile may take one in so many bytes that are free."""

MOST_ON_CPU, MOST_ON_GPU = 1 << 27, 1 << 33
"""Bytes of a tile's activations. On a CPU, larger ones take longer: their memory comes fresh from the system."""

OVERLAP = 4
"""Tiles that are blended overlap by one in so many of their pixels."""

LARGEST_TRIAL = 1 << 18
"""Pixels of the image on which tiles are tried; if more were needed, one axis is tried after the other."""

ROUNDING = 1e-5
"""By which share of the largest logit tiles may differ from the whole image."""

COMMON_MULTIPLE = 64
"""Of sizes, for models that only take multiples of their strides."""

SHAPED = (
    *("view", "_unsafe_view", "reshape", "expand", "repeat", "as_strided", "split", "split_with_sizes"),
    *("arange", "linspace", "zeros", "ones", "full", "empty", "empty_strided", "native_group_norm"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
)
"""Operators whose whole numbers follow from the shapes of images, as those of `upsample_…` and of adaptive pools do."""

BLENDED = 512
"""Pixels of their sides, if memory does not ask for fewer."""

Margins = tuple[int, int]
"""Pixels before and after."""


@dataclass(frozen=True)
class Tiling:
    """A model on images that are too large for it to be run on at once."""

    model: nn.Module
    stride: int
    margins: tuple[Margins, Margins]
    """Of height and width."""
    bytes_per_pixel: float
    """Of the activations that are held at once."""
    inexact: str = ""
    """Why tiles cannot give what the whole image gives; empty if they can."""
    off_grid: str = ""
    """Why they cannot if the image's size is no multiple of the stride; empty if they can."""
    channels: int = 1
    branches: dict[tuple[Size, Size | None], str] = field(default_factory=dict)
    """By the sizes of images and of tiles, why operators differ between them; empty if they do not."""

    @classmethod
    def of(cls, model: nn.Module, channels: int, pixel: float | None = None) -> Tiling:
        """What tiles a model needs, read off its operators; `pixel` is the bytes of a pixel, if known."""
        pixel = pixel or bytes_per_pixel(model, channels)
        try:
            field = receptive_field(model, channels, (SAMPLE, SAMPLE), measure=False)
        except UserError as error:
            return cls(model, 1, ((0, 0), (0, 0)), pixel, inexact=str(error))
        if field.tiles and field.shape[-2:] != (SAMPLE, SAMPLE):
            return cls(model, field.cumulative_stride, ((0, 0), (0, 0)), pixel, inexact="its output is of another size")
        height, width = ((max(axis.margins[0], 0), max(axis.margins[1], 0)) for axis in field.axes)
        exact = cls(model, field.cumulative_stride, (height, width), pixel, _why_inexact(field), channels=channels)
        if exact.inexact:
            return exact
        off_grid = ""
        if field.off_grid_layer:
            off_grid = f"its layer {field.off_grid_layer} is not shift-equivariant at sizes that are no multiple of "
            off_grid += f"{exact.stride} pixels"
        off_grid = off_grid or exact.disproof(channels)
        if off_grid and (exact.stride == 1 or exact.disproof(channels, on_grid=True)):
            return replace(exact, inexact=off_grid)
        return replace(exact, off_grid=off_grid)

    def on(self, size: Size, tile: Size | None = None) -> Tiling:
        """That of an image, by its size and that of its tiles."""
        off = any(length % self.stride for length in size)
        inexact = self.inexact or (self.off_grid if off else "")
        if not inexact and (size, tile) not in self.branches:
            self.branches[size, tile] = self._branch(size, tile)
        inexact = inexact or self.branches[size, tile]
        return replace(self, inexact=inexact, off_grid="") if inexact else self

    def _branch(self, size: Size, tile: Size | None) -> str:
        """Which operator an image, its smallest or its largest tile needs, other than a small image does."""
        # Noise is tried on small images alone, and so is the receptive field read: what the model does to more than so
        # many rows, by a branch or a constant in a slice, shows in its operators, which take no memory without pixels.
        sizes = [size]
        if tile:
            needed = [
                [part.stop - part.start for part in (self._needed(axis, part, size[axis]) for part in parts)]
                for axis, parts in enumerate(_cut(*lengths) for lengths in zip(size, tile, strict=True))
            ]
            sizes += [(min(needed[0]), min(needed[1])), (max(needed[0]), max(needed[1]))]
        unit = math.lcm(self.stride, COMMON_MULTIPLE)
        for height, width in dict.fromkeys(sizes):
            # Of the same rest, for a model may pad its image to a multiple.
            usual = _multiple(SAMPLE, unit) + height % unit, _multiple(SAMPLE, unit) + width % unit
            there, here = (_operators(self.model, (self.channels, *pixels)) for pixels in ((height, width), usual))
            if there != here and there and here:
                other = next(a or b for a, b in itertools.zip_longest(there, here, fillvalue="") if a != b)
                return f"it runs other operators on {height}×{width} pixels than on {usual[0]}×{usual[1]} ({other})"
        return ""

    def disproof(self, channels: int, on_grid: bool = False) -> str:
        """Runs a few tiles and the whole of a small image of noise; why they differ, empty if they do not.

        The size of the image is no multiple of the stride, or an odd one, `on_grid`.
        """
        # Receptive fields are read off operators, but a model may do anything with positions: scale by the width, or
        # treat the first ten columns apart. So the halves of the image and of its tiles lie elsewhere, and each tile is
        # compared with all that it has to give, beside each border and inside.
        axes = [_Trial.of(margins, self.stride, on_grid) for margins in self.margins]
        height, width = (trial.length for trial in axes)
        apart = height * width > LARGEST_TRIAL
        short = _odd_multiple(SAMPLE, self.stride) if on_grid else SAMPLE + 1
        for size in [(height, short), (short, width)] if apart else [(height, width)]:
            reason = self._compared(channels, size, axes)
            if reason:
                return reason
        return ""

    def _compared(self, channels: int, size: Size, axes: Sequence[_Trial]) -> str:
        """Why tiles differ from an image of noise as a whole, of that size or of one that the model takes."""
        reason = ""
        # Where it cannot be run on one that is no multiple of the stride, nothing proves tiles of such.
        off_grid = self.stride > 1 and any(length % self.stride for length in size)
        for unit in (1,) if off_grid else (1, self.stride, COMMON_MULTIPLE):
            rows, columns = (_multiple(length, unit) for length in size)
            places = zip(axes[0].places(rows), axes[1].places(columns), strict=True)
            try:
                return self._difference(channels, (rows, columns), list(places))
            except Exception as error:  # whatever a model's forward raises
                reason = f"tiles could not be tried on an image of {rows}×{columns} pixels ({in_one_line(error)})"
        return reason

    def _difference(self, channels: int, size: Size, places: Sequence[tuple[slice, slice]]) -> str:
        state = itertools.chain(self.model.parameters(), self.model.buffers())
        like = next((tensor for tensor in state if tensor.is_floating_point()), torch.empty(0))
        image = torch.randn(channels, *size, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
        worst = self._largest_difference(image, places)
        if worst > ROUNDING:
            # It may still be rounding, which is told from anything else in double precision, if the model takes that.
            with contextlib.suppress(Exception):
                doubled = replace(self, model=copy.deepcopy(self.model).double())
                worst = doubled._largest_difference(image.double(), places)
        if worst <= ROUNDING:
            return ""
        return f"tried on noise, tiles differ from the whole image by up to {worst:.2g} of the largest output"

    def _largest_difference(self, image: Tensor, places: Sequence[tuple[slice, slice]]) -> float:
        """As a share of the largest logit."""
        whole, logits = run(self.model, image), self._exact(Pieces.of(image))
        pairs = [(logits.cut(*place), whole[:, place[0], place[1]]) for place in places]
        return max(float((piece - part).abs().max()) for piece, part in pairs) / max(float(whole.abs().max()), 1e-30)

    def tile(self, size: Size, device: torch.device, side: int | None = None) -> Size:
        """Height and width of the tiles of an image, multiples of the stride: of a given side, or as memory allows.

        Of the tiles that fit in memory those are taken that cost the fewest pixels, margins included.
        """
        pixels = activation_bytes(device) / self.bytes_per_pixel
        if not side and not self.on(size).inexact:
            tile = min(self._candidates(size, pixels), key=lambda tile: self._cost(size, tile))
            if not self.on(size, tile).inexact:
                return tile
        side = side or min(BLENDED, math.isqrt(int(pixels)))
        return _multiple(side, self.stride), _multiple(side, self.stride)

    def _candidates(self, size: Size, pixels: float) -> Iterator[Size]:
        """For each number of rows of tiles the widest tiles that fit in memory; the smallest ones if none fit."""
        before_and_after = [sum(margins) + 2 * self.stride for margins in self.margins]
        none_fits = True
        for height in _sides(size[0], self.stride):
            room = int(pixels // (height + before_and_after[0])) - before_and_after[1]
            if room >= self.stride:
                none_fits = False
                across = -(-size[1] // (min(room, _multiple(size[1], self.stride)) // self.stride * self.stride))
                yield height, _multiple(-(-size[1] // across), self.stride)
        if none_fits:
            yield self.stride, self.stride

    def _cost(self, size: Size, tile: Size) -> tuple[int, int]:
        """Pixels that the model is run on, and the number of tiles."""
        down, across = (
            [self._needed(axis, part, size[axis]) for part in _cut(size[axis], tile[axis])] for axis in range(2)
        )
        lengths = [sum(part.stop - part.start for part in parts) for parts in (down, across)]
        return lengths[0] * lengths[1], len(down) * len(across)

    def _needed(self, axis: int, wanted: slice, length: int) -> slice:
        """What the model has to be given for some rows or columns of its output."""
        before, after = self.margins[axis]
        stop = -(-(wanted.stop + after) // self.stride) * self.stride
        if stop >= length and length % self.stride:
            before += self.stride  # a model that extends images to multiples of it may do so by mirroring
        return slice(max(0, (wanted.start - before) // self.stride * self.stride), min(stop, length))

    def logits(self, image: Pieces, tile: Size) -> Pieces:
        """Logits (K, H, W) on an image (C, H, W); `tile` is the size of tiles that are blended."""
        if self.on(image.size, tile).inexact:
            axes = [BlendedAxis.of(length, tile[0], self.stride) for length in image.size]
            return Pieces(image.size, _BlendedTiles(self.model, image, axes).cut)
        return self._exact(image)

    def _exact(self, image: Pieces) -> Pieces:
        def cut(rows: slice, columns: slice) -> Tensor:
            needed = [self._needed(axis, part, image.size[axis]) for axis, part in enumerate((rows, columns))]
            inner = [shifted(part, -whole.start) for part, whole in zip((rows, columns), needed, strict=True)]
            return run(self.model, image.cut(*needed))[:, inner[0], inner[1]]

        return Pieces(image.size, cut)


@dataclass(frozen=True)
class _Trial:
    """The length of an image on which tiles are tried along one axis, and of the tiles."""

    length: int
    inner: int
    """Where the tile begins that touches no border."""
    side: int

    @classmethod
    def of(cls, margins: Margins, stride: int, on_grid: bool) -> _Trial:
        """The smallest that has a tile inside, and halves that lie elsewhere than those of its tiles."""
        before, after = (_multiple(margin, stride) if margin else 0 for margin in margins)
        side = _multiple(max(4 * stride, abs(before - after) + stride, 16), stride)
        inner = before + stride
        length = inner + 2 * side + after + 4 * stride
        return cls(_odd_multiple(length, stride) if on_grid else length + 1, inner, side)

    def places(self, length: int) -> list[slice]:
        """Beside the first border, inside, and beside the last one, of an image that may have another length."""
        last = (length - self.side) // self.side * self.side
        starts = (0, min(self.inner, last), last)
        return [slice(start, min(start + self.side, length)) for start in starts[:2]] + [slice(last, length)]


def _why_inexact(field: ReceptiveField) -> str:
    if field.measured:
        return field.measured
    for axis in field.axes:
        if axis.global_layer:
            return f"every output depends on the whole image, because of its layer {axis.global_layer}"
        if axis.shift_variant_layer:
            return f"its layer {axis.shift_variant_layer} is not shift-equivariant"
    return ""


def _odd_multiple(length: int, unit: int) -> int:
    return (-(-length // unit) | 1) * unit


def _multiple(length: int, unit: int) -> int:
    return max(1, -(-length // unit)) * unit


def _sides(length: int, unit: int) -> list[int]:
    """The different sides of tiles that cut a length into 1, 2, 3, … of them."""
    counts = range(1, -(-length // unit) + 1)
    return list(dict.fromkeys(_multiple(-(-length // count), unit) for count in counts))


def _cut(length: int, side: int) -> Iterator[slice]:
    return (slice(first, min(first + side, length)) for first in range(0, length, side))


def tiles(size: Size, tile: Size, first_row: int = 0) -> Iterator[tuple[slice, slice]]:
    """The tiles of an image row by row, from the row of pixels `first_row` on."""
    for rows in _cut(size[0] - first_row, tile[0]):
        for columns in _cut(size[1], tile[1]):
            yield shifted(rows, first_row), columns


def assemble(logits: Pieces, tile: Size) -> Tensor:
    """All of them (K, H, W), tile by tile."""
    whole: Tensor | None = None
    for rows, columns in tiles(logits.size, tile):
        piece = logits.cut(rows, columns)
        if whole is None:
            whole = piece.new_empty((len(piece), *logits.size))
        whole[:, rows, columns] = piece
    assert whole is not None, "an image has a pixel"
    return whole


def run(model: nn.Module, image: Tensor) -> Tensor:
    """Logits (K, H, W) on an image (C, H, W) at once. Raises UserError if the model cannot take it."""
    try:
        with torch.no_grad(), full_precision.in_full(image.device):
            logits: Tensor = model(image[None])[0]
    except (RuntimeError, ValueError, IndexError) as error:
        if memory.is_exhausted(error):
            raise
        channels, height, width = image.shape
        if trace(model, channels, (height, width)).failure:
            receptive_field(model, channels, (height, width))  # says which layer cannot, and which size would do
        raise
    if logits.ndim == 3 and logits.shape[1:] != image.shape[1:]:
        sizes = (f"{height}×{width}" for height, width in (logits.shape[1:], image.shape[1:]))
        raise UserError(
            f"the model gives {' pixels for an image of '.join(sizes)}; let it extend images to a multiple of its "
            "strides and cut what it gives to their size"
        )
    return logits


def at_once(model: nn.Module, image: Pieces) -> Pieces:
    """Logits on an image that the model takes as a whole, again for each piece that is asked for."""
    return Pieces(image.size, lambda rows, columns: run(model, image.whole)[:, rows, columns])


@dataclass(frozen=True)
class BlendedAxis:
    """Overlapping tiles along one axis, and the weight of each of their pixels: all weights of a pixel make 1."""

    tiles: tuple[slice, ...]
    weights: tuple[Tensor, ...]

    @classmethod
    def of(cls, length: int, side: int, stride: int) -> BlendedAxis:
        """Tiles that begin at multiples of the stride; the last one ends where the image does.

        A tile knows least at its ends, where it lacks what is beyond. So its weight falls to them in a ramp as long as
        the overlap, but not at an end of the image, where there is nothing beyond. The last tile may overlap more than
        one other, since it is moved back to end with the image; dividing by the sum makes the weights right anyway.
        """
        if length <= side:
            return cls((slice(0, length),), (torch.ones(length),))
        ramp = max(1, side // OVERLAP)
        step = max(stride, (side - side // OVERLAP) // stride * stride)
        last = -(-(length - side) // stride) * stride
        tiles = tuple(slice(start, min(start + side, length)) for start in sorted({*range(0, last, step), last}))
        ramps = []
        for tile in tiles:
            places = torch.arange(tile.start, tile.stop)
            before = places - tile.start + 1 if tile.start else torch.full_like(places, ramp)
            after = tile.stop - places if tile.stop < length else torch.full_like(places, ramp)
            ramps.append(torch.minimum(before, after).clamp_max(ramp).float())
        total = torch.zeros(length)
        for tile, weight in zip(tiles, ramps, strict=True):
            total[tile] += weight
        return cls(tiles, tuple(weight / total[tile] for tile, weight in zip(tiles, ramps, strict=True)))

    def on(self, wanted: slice) -> Iterator[tuple[int, slice, slice, Tensor]]:
        """The tiles that some rows or columns lie in: index, their place in the piece, in the tile, and weights."""
        for index, (tile, weight) in enumerate(zip(self.tiles, self.weights, strict=True)):
            common = slice(max(wanted.start, tile.start), min(wanted.stop, tile.stop))
            if common.start < common.stop:
                inner = shifted(common, -tile.start)
                yield index, shifted(common, -wanted.start), inner, weight[inner]


@dataclass
class _BlendedTiles:
    """A model's logits on overlapping tiles, kept as long as pieces are asked for row by row."""

    model: nn.Module
    image: Pieces
    axes: list[BlendedAxis]
    kept: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def logits(self, i: int, j: int) -> Tensor:
        if (i, j) not in self.kept:
            self.kept = {place: logits for place, logits in self.kept.items() if abs(place[0] - i) < 2}
            self.kept[i, j] = run(self.model, self.image.cut(self.axes[0].tiles[i], self.axes[1].tiles[j]))
        return self.kept[i, j]

    def cut(self, rows: slice, columns: slice) -> Tensor:
        """A piece (K, h, w) of the tiles' weighted mean."""
        total: Tensor | None = None
        for (i, y, inner_y, down), (j, x, inner_x, right) in itertools.product(
            self.axes[0].on(rows), self.axes[1].on(columns)
        ):
            logits = self.logits(i, j)
            if total is None:
                total = logits.new_zeros((len(logits), rows.stop - rows.start, columns.stop - columns.start))
            total[:, y, x] += logits[:, inner_y, inner_x] * (down[:, None] * right).to(logits.device)
        assert total is not None, "tiles lie on every pixel"
        return total


# Memory


class _PeakMemory(TorchDispatchMode):
    """The most bytes that all tensors made by operators take at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = overload(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor):
                self.sizes[StorageWeakRef(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        self.sizes = {key: size for key, size in self.sizes.items() if not key.expired()}
        self.peak = max(self.peak, sum(self.sizes.values()))
        return results


class _Operators(TorchDispatchMode):
    """Names of all operators, with the parameters they take and the numbers that do not follow from shapes."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parameters = {id(tensor): name for name, tensor in state.items()}
        self.operators: list[str] = []

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = overload(*args, **(kwargs or {}))
        name = overload.name().partition(".")[0].removeprefix("aten::")
        leaves = tree_leaves((args, kwargs))
        given = [self.parameters.get(id(leaf), "") for leaf in leaves if isinstance(leaf, Tensor)]
        if name == "slice":
            leaves = [*args[1:3], *args[4:]]  # without its end
        kinds = float if name in SHAPED or "upsample" in name or "adaptive" in name else int | float
        given += [str(leaf) for leaf in leaves if isinstance(leaf, kinds)]
        self.operators.append(" ".join(filter(None, [name, *given])))
        return results


def _operators(model: nn.Module, image: tuple[int, int, int]) -> list[str]:
    """What a model runs on an image (C, H, W); none if it needs the values of pixels."""
    state = _without_values(model)
    mode = _Operators(state)
    try:
        _run_without_pixels(model, state, image, mode)
    except Exception:  # whatever a model's forward raises without pixels, it may well run with them
        return []
    return mode.operators


def _without_values(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers on the meta device."""
    parameters = model.named_parameters(remove_duplicate=False)
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: tensor.detach().to("meta") for name, tensor in itertools.chain(parameters, buffers)}


def _run_without_pixels(
    model: nn.Module, state: dict[str, Tensor], image: tuple[int, int, int], mode: TorchDispatchMode
) -> None:
    dtype = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), None)
    pixels = torch.empty(1, *image, device="meta", dtype=dtype)
    with attributes.preserved(model), torch.no_grad(), torch.device("meta"), mode:
        torch.func.functional_call(model, state, (pixels,), tie_weights=False)


def bytes_per_pixel(model: nn.Module, channels: int) -> float:
    """Bytes of activations that a model holds at once for each pixel of an image."""
    return peak_bytes(model, (channels, SAMPLE, SAMPLE)) / SAMPLE**2


def peak_bytes(model: nn.Module, image: tuple[int, int, int]) -> int:
    """The most bytes of activations that a model holds on an image (C, H, W); a guess if it needs their values."""
    memory_use = _PeakMemory()
    try:
        _run_without_pixels(model, _without_values(model), image, memory_use)
    except Exception:  # whatever a model's forward raises without pixels, it may well run with them
        return 1024 * math.prod(image[1:])
    return int(memory_use.peak)


def activation_bytes(device: torch.device) -> int:
    """Bytes that a tile's activations may take on a device, by what is free there."""
    most = MOST_ON_GPU if device.type == "cuda" else MOST_ON_CPU
    return min(most, memory.free(device) // SHARE)
