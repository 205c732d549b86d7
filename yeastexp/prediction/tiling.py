"""A model run on large images in tiles, each with as much around it as its outputs depend on.

Exact tiles give what the whole image gives: they begin at multiples of the model's stride, have margins as wide as its
receptive field, and end where the image does. Some of them are run on a small image first, to confirm it. Where no
margin would do, as behind a layer whose outputs depend on the whole image, overlapping tiles are blended.
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
from yeastexp.nets.operators import call_operator
from yeastexp.nets.receptive_field import ReceptiveField, receptive_field, trace
from yeastexp.system import full_precision, memory

SAMPLE = 256
"""The side, in pixels, of the image on which a model's memory and receptive field are measured."""

SHARE = 4
"""A tile's activations may take one byte in so many that are free."""

MOST_ON_CPU, MOST_ON_GPU = 1 << 27, 1 << 33
"""The most bytes of a tile's activations. On a CPU larger tensors are slower: their memory is fresh from the system."""

OVERLAP = 4
"""Blended tiles overlap by one pixel in so many of their side."""

LARGEST_TRIAL = 1 << 18
"""The most pixels of an image on which tiles are tried; if more were needed, the axes are tried one after the other."""

ROUNDING = 1e-5
"""The difference between tiles and the whole image that counts as rounding, as a share of the largest logit."""

COMMON_MULTIPLE = 64
"""Sizes are rounded up to a multiple of this for models that only take multiples of their strides."""

SHAPED = (
    *("view", "_unsafe_view", "reshape", "expand", "repeat", "as_strided", "split", "split_with_sizes"),
    *("arange", "linspace", "zeros", "ones", "full", "empty", "empty_strided", "native_group_norm"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
)
"""Operators whose integer arguments follow from the image's shape, as those of `upsample_…` and adaptive pools do."""

BLENDED = 512
"""The side of blended tiles in pixels, unless memory asks for smaller ones."""

Margins = tuple[int, int]
"""Pixels before and after a tile along one axis."""


@dataclass(frozen=True)
class Tiling:
    """How a model is run in tiles on images that are too large for it to be run on at once."""

    model: nn.Module
    stride: int
    margins: tuple[Margins, Margins]
    """The margins along height and width."""
    bytes_per_pixel: float
    """The activations that are held at once, for each pixel of a tile with its margins."""
    inexact: str = ""
    """Why tiles cannot give what the whole image gives; empty if they can."""
    off_grid: str = ""
    """Why tiles are inexact if the image's size is no multiple of the stride; empty if they are exact."""
    channels: int = 1
    branches: dict[tuple[Size, Size | None], str] = field(default_factory=dict)
    """Results of `_branch` by the sizes of image and tiles, filled when they are needed."""

    @classmethod
    def of(cls, model: nn.Module, channels: int, pixel: float | None = None) -> Tiling:
        """Return the tiling that a model needs, by its operators; `pixel` is its bytes per pixel, if known."""
        pixel = pixel or bytes_per_pixel(model, channels)
        try:
            field = receptive_field(model, channels, (SAMPLE, SAMPLE), measure=False)
        except UserError as error:
            return cls(model, 1, ((0, 0), (0, 0)), pixel, inexact=str(error))
        if field.tiles and field.shape[-2:] != (SAMPLE, SAMPLE):
            return cls(model, field.cumulative_stride, ((0, 0), (0, 0)), pixel, inexact="its output is of another size")
        # A margin is negative where outputs depend only on pixels beside their own, as after a shift.
        height, width = ((max(axis.margins[0], 0), max(axis.margins[1], 0)) for axis in field.axes)
        exact = cls(model, field.cumulative_stride, (height, width), pixel, _why_inexact(field), channels=channels)
        if exact.inexact:
            return exact
        off_grid = ""
        if field.off_grid_layer:
            off_grid = f"its layer {field.off_grid_layer} is not shift-equivariant at sizes that are no multiple of "
            off_grid += f"{exact.stride} pixels"
        # The first trial is at a size off the grid, where a layer as above would fail. Only then is one on the grid
        # needed, to tell a model whose grid moves with the image's size from one that is exact nowhere.
        off_grid = off_grid or exact.disproof(channels)
        if off_grid and (exact.stride == 1 or exact.disproof(channels, on_grid=True)):
            return replace(exact, inexact=off_grid)
        return replace(exact, off_grid=off_grid)

    def on(self, size: Size, tile: Size | None = None) -> Tiling:
        """Return the tiling of an image by its size and that of its tiles; `inexact` says why these are blended."""
        off = any(length % self.stride for length in size)
        inexact = self.inexact or (self.off_grid if off else "")
        if not inexact and (size, tile) not in self.branches:
            self.branches[size, tile] = self._branch(size, tile)
        inexact = inexact or self.branches[size, tile]
        return replace(self, inexact=inexact, off_grid="") if inexact else self

    def _branch(self, size: Size, tile: Size | None) -> str:
        """Return which operators the image, its smallest or its largest tile needs that a small image does not.

        Empty if there are none, and if the model cannot be run without pixels.
        """
        # Noise and the receptive field are tried on small images alone. What the model does to more rows than those
        # have, by a branch or a constant in a slice, shows in its operators, which take no memory without pixels.
        sizes = [size]
        if tile:
            needed = [
                [part.stop - part.start for part in (self._needed(axis, part, size[axis]) for part in parts)]
                for axis, parts in enumerate(_cut(*lengths) for lengths in zip(size, tile, strict=True))
            ]
            sizes += [(min(needed[0]), min(needed[1])), (max(needed[0]), max(needed[1]))]
        unit = math.lcm(self.stride, COMMON_MULTIPLE)
        for height, width in dict.fromkeys(sizes):
            # The small image has the same remainder: a model that pads images to a multiple pads both alike.
            usual = _multiple(SAMPLE, unit) + height % unit, _multiple(SAMPLE, unit) + width % unit
            there, here = (_operators(self.model, (self.channels, *pixels)) for pixels in ((height, width), usual))
            if there != here and there and here:
                other = next(a or b for a, b in itertools.zip_longest(there, here, fillvalue="") if a != b)
                return f"it runs other operators on {height}×{width} pixels than on {usual[0]}×{usual[1]} ({other})"
        return ""

    def disproof(self, channels: int, on_grid: bool = False) -> str:
        """Run a small image of noise in tiles and at once, and return why the outputs differ; empty if they do not.

        The image's size is no multiple of the stride or, `on_grid`, an odd multiple.
        """
        # Receptive fields are derived from operators, but a model may do anything with positions: scale by the width,
        # or treat the halves apart. So halves of the image and of its tiles must not coincide, and tiles beside both
        # borders and inside are compared in full.
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
        """Return why tiles of noise differ from the whole, at `size` or the next larger size that the model takes."""
        reason = ""
        # A size off the grid must not be rounded up: if the model refuses it, nothing shows that tiles are exact there.
        off_grid = self.stride > 1 and any(length % self.stride for length in size)
        for unit in (1,) if off_grid else (1, self.stride, COMMON_MULTIPLE):
            rows, columns = (_multiple(length, unit) for length in size)
            places = zip(axes[0].places(rows), axes[1].places(columns), strict=True)
            try:
                return self._difference(channels, (rows, columns), list(places))
            # A model's forward may raise anything at a size that it does not take.
            except Exception as error:
                reason = f"tiles could not be tried on an image of {rows}×{columns} pixels ({in_one_line(error)})"
        return reason

    def _difference(self, channels: int, size: Size, places: Sequence[tuple[slice, slice]]) -> str:
        """Return why outputs of tiles differ from those of the whole image by more than rounding; empty if not."""
        state = itertools.chain(self.model.parameters(), self.model.buffers())
        like = next((tensor for tensor in state if tensor.is_floating_point()), torch.empty(0))
        image = torch.randn(channels, *size, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
        worst = self._largest_difference(image, places)
        if worst > ROUNDING:
            # Convolutions may choose other algorithms for tiles, so float32 may round differently. In double precision,
            # if the model takes that, rounding shrinks and any other difference stays.
            with contextlib.suppress(Exception):
                doubled = replace(self, model=copy.deepcopy(self.model).double())
                worst = doubled._largest_difference(image.double(), places)
        if worst <= ROUNDING:
            return ""
        return f"tried on noise, tiles differ from the whole image by up to {worst:.2g} of the largest output"

    def _largest_difference(self, image: Tensor, places: Sequence[tuple[slice, slice]]) -> float:
        """Return the largest difference between tiles and the whole image, as a share of the largest logit."""
        whole, logits = run(self.model, image), self._exact(Pieces.of(image))
        pairs = [(logits.cut(*place), whole[:, place[0], place[1]]) for place in places]
        return max(float((piece - part).abs().max()) for piece, part in pairs) / max(float(whole.abs().max()), 1e-30)

    def tile(self, size: Size, device: torch.device, side: int | None = None) -> Size:
        """Return the height and width of tiles, multiples of the stride: of a given side, or as memory allows.

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
        """Yield for each number of rows of tiles the widest tiles that fit in memory; the smallest ones if none fit."""
        before_and_after = [sum(margins) + 2 * self.stride for margins in self.margins]
        none_fits = True
        for height in _sides(size[0], self.stride):
            room = int(pixels // (height + before_and_after[0])) - before_and_after[1]
            if room >= self.stride:
                none_fits = False
                # As many tiles as the widest that fit would need, and then all of equal width: the margins cost the
                # same, and no tile is a narrow rest.
                across = -(-size[1] // (min(room, _multiple(size[1], self.stride)) // self.stride * self.stride))
                yield height, _multiple(-(-size[1] // across), self.stride)
        if none_fits:
            yield self.stride, self.stride

    def _cost(self, size: Size, tile: Size) -> tuple[int, int]:
        """Return the number of pixels that the model is run on, margins included, and the number of tiles."""
        down, across = (
            [self._needed(axis, part, size[axis]) for part in _cut(size[axis], tile[axis])] for axis in range(2)
        )
        lengths = [sum(part.stop - part.start for part in parts) for parts in (down, across)]
        return lengths[0] * lengths[1], len(down) * len(across)

    def _needed(self, axis: int, wanted: slice, length: int) -> slice:
        """Return the rows or columns of the image that some rows or columns of the output depend on.

        They begin at a multiple of the stride and end at one, or at the end of the image.
        """
        before, after = self.margins[axis]
        stop = -(-(wanted.stop + after) // self.stride) * self.stride
        # A model that extends images to a multiple of its stride may mirror up to a stride of pixels at the end, and
        # a tile has to hold those that are mirrored.
        if stop >= length and length % self.stride:
            before += self.stride
        return slice(max(0, (wanted.start - before) // self.stride * self.stride), min(stop, length))

    def logits(self, image: Pieces, tile: Size) -> Pieces:
        """Return logits (K, H, W) on an image (C, H, W), computed when a piece is read.

        `tile` is the size of tiles if they are blended; exact ones are as large as the pieces that are read.
        """
        if self.on(image.size, tile).inexact:
            axes = [BlendedAxis.of(length, tile[0], self.stride) for length in image.size]
            return Pieces(image.size, _BlendedTiles(self.model, image, axes).cut)
        return self._exact(image)

    def _exact(self, image: Pieces) -> Pieces:
        """Return logits on an image, each piece computed from the pixels that it depends on."""

        def cut(rows: slice, columns: slice) -> Tensor:
            needed = [self._needed(axis, part, image.size[axis]) for axis, part in enumerate((rows, columns))]
            inner = [shifted(part, -whole.start) for part, whole in zip((rows, columns), needed, strict=True)]
            return run(self.model, image.cut(*needed))[:, inner[0], inner[1]]

        return Pieces(image.size, cut)


@dataclass(frozen=True)
class _Trial:
    """The lengths of an image on which tiles are tried, and of these tiles, along one axis."""

    length: int
    inner: int
    """Where the tile begins that is so far inside that its margins touch no border."""
    side: int

    @classmethod
    def of(cls, margins: Margins, stride: int, on_grid: bool) -> _Trial:
        """Return the smallest trial with a tile inside, and in which halves of the image and of tiles differ."""
        # If the middle of a tile with its margins fell on the middle of the image, a model that treats the halves of
        # its input apart would pass.
        before, after = (_multiple(margin, stride) if margin else 0 for margin in margins)
        side = _multiple(max(4 * stride, abs(before - after) + stride, 16), stride)
        inner = before + stride
        length = inner + 2 * side + after + 4 * stride
        return cls(_odd_multiple(length, stride) if on_grid else length + 1, inner, side)

    def places(self, length: int) -> list[slice]:
        """Return tiles beside the first border, inside, and beside the last border of an image of some length."""
        last = (length - self.side) // self.side * self.side
        starts = (0, min(self.inner, last), last)
        return [slice(start, min(start + self.side, length)) for start in starts[:2]] + [slice(last, length)]


def _why_inexact(field: ReceptiveField) -> str:
    """Return why tiles cannot be exact by the receptive field; empty if they can."""
    if field.measured:
        return field.measured
    for axis in field.axes:
        if axis.global_layer:
            return f"every output depends on the whole image, because of its layer {axis.global_layer}"
        if axis.shift_variant_layer:
            return f"its layer {axis.shift_variant_layer} is not shift-equivariant"
    return ""


def _odd_multiple(length: int, unit: int) -> int:
    """Return a length rounded up to an odd multiple of a unit, whose half is no multiple."""
    return (-(-length // unit) | 1) * unit


def _multiple(length: int, unit: int) -> int:
    """Return a length rounded up to a multiple of a unit, at least one unit."""
    return max(1, -(-length // unit)) * unit


def _sides(length: int, unit: int) -> list[int]:
    """Return the different sides, multiples of a unit, of tiles that cut a length into 1, 2, 3, … parts."""
    counts = range(1, -(-length // unit) + 1)
    return list(dict.fromkeys(_multiple(-(-length // count), unit) for count in counts))


def _cut(length: int, side: int) -> Iterator[slice]:
    """Yield the tiles of a length, the last of which may be shorter."""
    return (slice(first, min(first + side, length)) for first in range(0, length, side))


def tiles(size: Size, tile: Size, first_row: int = 0) -> Iterator[tuple[slice, slice]]:
    """Yield the tiles of an image row by row, from the row of pixels `first_row` on."""
    for rows in _cut(size[0] - first_row, tile[0]):
        for columns in _cut(size[1], tile[1]):
            yield shifted(rows, first_row), columns


def assemble(logits: Pieces, tile: Size) -> Tensor:
    """Return all logits (K, H, W) in one tensor, read tile by tile."""
    whole: Tensor | None = None
    for rows, columns in tiles(logits.size, tile):
        piece = logits.cut(rows, columns)
        if whole is None:
            whole = piece.new_empty((len(piece), *logits.size))
        whole[:, rows, columns] = piece
    assert whole is not None, "an image has a pixel"
    return whole


def run(model: nn.Module, image: Tensor) -> Tensor:
    """Return logits (K, H, W) on an image (C, H, W) at once; raises UserError if the model cannot take the image."""
    try:
        with torch.no_grad(), full_precision.in_full(image.device):
            logits: Tensor = model(image[None])[0]
    except (RuntimeError, ValueError, IndexError) as error:
        if memory.is_exhausted(error):
            raise
        # If the size is at fault, this raises a UserError that names the layer and a size that it takes. Any other
        # error is a bug of the model and keeps its traceback.
        channels, height, width = image.shape
        if trace(model, channels, (height, width)).failure:
            receptive_field(model, channels, (height, width))
        raise
    if logits.ndim == 3 and logits.shape[1:] != image.shape[1:]:
        sizes = (f"{height}×{width}" for height, width in (logits.shape[1:], image.shape[1:]))
        raise UserError(
            f"the model gives {' pixels for an image of '.join(sizes)}; let it extend images to a multiple of its "
            "strides and cut what it gives to their size"
        )
    return logits


def at_once(model: nn.Module, image: Pieces) -> Pieces:
    """Return logits on an image that the model takes as a whole; each piece that is read runs the model again."""
    return Pieces(image.size, lambda rows, columns: run(model, image.whole)[:, rows, columns])


@dataclass(frozen=True)
class BlendedAxis:
    """Overlapping tiles along one axis, and the weights of their pixels, which add up to 1 at each pixel."""

    tiles: tuple[slice, ...]
    weights: tuple[Tensor, ...]

    @classmethod
    def of(cls, length: int, side: int, stride: int) -> BlendedAxis:
        """Return tiles that begin at multiples of the stride, the last of which ends where the image does."""
        if length <= side:
            return cls((slice(0, length),), (torch.ones(length),))
        # A tile is worst at its ends, where it lacks what lies beyond. So its weight falls there in a ramp as long as
        # the overlap, but not at an end of the image, where nothing lies beyond. The last tile is moved back to end
        # with the image and may overlap several others; dividing by the sum makes up for that.
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
        """Yield the tiles that overlap the rows or columns `wanted`.

        Each comes as its index, the overlap as a slice of the piece and of the tile, and the weights there.
        """
        for index, (tile, weight) in enumerate(zip(self.tiles, self.weights, strict=True)):
            common = slice(max(wanted.start, tile.start), min(wanted.stop, tile.stop))
            if common.start < common.stop:
                inner = shifted(common, -tile.start)
                yield index, shifted(common, -wanted.start), inner, weight[inner]


@dataclass
class _BlendedTiles:
    """A model's logits on overlapping tiles; those of adjacent rows of tiles are kept."""

    model: nn.Module
    image: Pieces
    axes: list[BlendedAxis]
    kept: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def logits(self, i: int, j: int) -> Tensor:
        """Return the logits (K, h, w) of the tile in row i and column j."""
        # Pieces are read row by row from the top, so tiles two rows away are hardly needed again; dropping them bounds
        # memory by the width of the image.
        if (i, j) not in self.kept:
            self.kept = {place: logits for place, logits in self.kept.items() if abs(place[0] - i) < 2}
            self.kept[i, j] = run(self.model, self.image.cut(self.axes[0].tiles[i], self.axes[1].tiles[j]))
        return self.kept[i, j]

    def cut(self, rows: slice, columns: slice) -> Tensor:
        """Return a piece (K, h, w) of the weighted mean of all tiles."""
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
    """Measures the most bytes that all tensors made by operators take at once."""

    # Storages are held by weak references alone, so that they are freed when the model drops them: an expired one no
    # longer counts. Views share a storage and count once.

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = call_operator(overload, args, kwargs)
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor):
                self.sizes[StorageWeakRef(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        self.sizes = {key: size for key, size in self.sizes.items() if not key.expired()}
        self.peak = max(self.peak, sum(self.sizes.values()))
        return results


class _Operators(TorchDispatchMode):
    """Records the names of all operators, with their parameters and the numbers that do not follow from shapes."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parameters = {id(tensor): name for name, tensor in state.items()}
        self.operators: list[str] = []

    def __torch_dispatch__(self, overload: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = call_operator(overload, args, kwargs)
        name = overload.name().partition(".")[0].removeprefix("aten::")
        leaves = tree_leaves((args, kwargs))
        given = [self.parameters.get(id(leaf), "") for leaf in leaves if isinstance(leaf, Tensor)]
        # The end of a slice is left out, because that of `x[:, :, :height]` follows from the shape. Of operators that
        # are given shapes only floats count: their integers differ with the size anyhow, but a scale must not.
        if name == "slice":
            leaves = [*args[1:3], *args[4:]]
        kinds = float if name in SHAPED or "upsample" in name or "adaptive" in name else int | float
        given += [str(leaf) for leaf in leaves if isinstance(leaf, kinds)]
        self.operators.append(" ".join(filter(None, [name, *given])))
        return results


def _operators(model: nn.Module, image: tuple[int, int, int]) -> list[str]:
    """Return the operators that a model runs on an image (C, H, W); none if it needs the values of pixels."""
    state = _without_values(model)
    mode = _Operators(state)
    # Whatever a model's forward raises without pixels, it may well run with them.
    try:
        _run_without_pixels(model, state, image, mode)
    except Exception:
        return []
    return mode.operators


def _without_values(model: nn.Module) -> dict[str, Tensor]:
    """Return stand-ins on the meta device for a model's parameters and buffers, by name."""
    parameters = model.named_parameters(remove_duplicate=False)
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: tensor.detach().to("meta") for name, tensor in itertools.chain(parameters, buffers)}


def _run_without_pixels(
    model: nn.Module, state: dict[str, Tensor], image: tuple[int, int, int], mode: TorchDispatchMode
) -> None:
    """Run a model on an image (C, H, W) of the meta device, with a mode that is given all operators."""
    dtype = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), None)
    pixels = torch.empty(1, *image, device="meta", dtype=dtype)
    with attributes.preserved(model), torch.no_grad(), torch.device("meta"), mode:
        torch.func.functional_call(model, state, (pixels,), tie_weights=False)


def bytes_per_pixel(model: nn.Module, channels: int) -> float:
    """Return the bytes of activations that a model holds at once for each pixel of an image."""
    return peak_bytes(model, (channels, SAMPLE, SAMPLE)) / SAMPLE**2


def peak_bytes(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Return the most bytes of activations that a model holds on an image (C, H, W); a guess if it needs its values."""
    memory_use = _PeakMemory()
    # Whatever a model's forward raises without pixels, it may well run with them.
    try:
        _run_without_pixels(model, _without_values(model), image, memory_use)
    except Exception:
        return 1024 * math.prod(image[1:])
    return int(memory_use.peak)


def activation_bytes(device: torch.device) -> int:
    """Return the bytes that a tile's activations may take on a device, by what is free there."""
    most = MOST_ON_GPU if device.type == "cuda" else MOST_ON_CPU
    return min(most, memory.free(device) // SHARE)
