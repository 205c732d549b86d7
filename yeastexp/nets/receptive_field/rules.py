"""Rules for what the outputs of PyTorch's operators depend on, one for each operator; most choose input positions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from yeastexp.nets.receptive_field.extent import BEYOND, MAX_VALUES, NO_TAP, Extent, Integers, Unsupported, union


@dataclass(frozen=True)
class Call:
    """One call of an operator, as given to its rule, along one axis of the image."""

    name: str
    layer: str
    arguments: Mapping[str, Any]
    """The arguments by the operator's own names, defaults filled in."""
    shapes: tuple[tuple[int, ...], ...]
    """The shapes of the outputs."""
    pixels: int
    """The size of the image along the axis."""
    extent_of: Callable[[Tensor], Extent | None]
    """Returns the extent of an input; None if it does not depend on the image."""
    varies_of: Callable[[Tensor], Variation]
    """Returns along which dimensions the values of a constant, an input independent of the image, may differ."""
    origin_of: Callable[[Tensor], tuple[str, Mapping[str, Any]] | None]
    """Returns the name and the arguments of the operator that made an input; None if it was made outside of the run."""

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def source(self) -> Tensor:
        """The first argument."""
        first: Tensor = next(iter(self.arguments.values()))
        return first

    @property
    def tensors(self) -> list[Tensor]:
        """All arguments that are tensors, and the tensors in lists."""
        listed = (value if isinstance(value, list | tuple) else [value] for value in self.arguments.values())
        return [value for values in listed for value in values if isinstance(value, Tensor)]

    @property
    def extents(self) -> list[Extent]:
        """The extents of the arguments that depend on the image."""
        return [extent for tensor in self.tensors if (extent := self.extent_of(tensor))]

    @property
    def extent(self) -> Extent:
        """The extent of the first argument; raises Unsupported unless it alone depends on the image."""
        extent = self.extent_of(self.source)
        if extent is None or len(self.extents) > 1:
            raise Unsupported("its weights depend on the image")
        return extent

    def gather(self, positions: Iterable[tuple[int, Integers]]) -> Extent:
        """Return the output's extent for an operator that only chooses positions of its first argument.

        `positions` lists dimensions, each with the positions (out, taps) that `Extent.gather` takes.
        """
        extent = self.extent
        for dim, chosen in positions:
            extent = extent.gather(dim, chosen)
        return extent

    def mark_global(self, extent: Extent) -> Extent:
        """Return the extent, naming this layer as the global one if every position now depends on the whole image."""
        if extent.global_layer or not extent.covers(self.pixels):
            return extent
        # In an image smaller than the field of the convolutions before it every operator would look global. If no input
        # is any different, this one cannot be blamed until a larger image was tried.
        presumed = all(before.covers(self.pixels) for before in self.extents)
        return replace(extent.collapsed(), global_layer=self.layer, presumed=presumed)

    def mark_varying(self, extent: Extent, tensors: Iterable[Tensor]) -> Extent:
        """Return the extent, marked as shift-variant if constants that are broadcast to it vary over positions."""
        for tensor in tensors:
            if not self.extent_of(tensor):
                extent = self.mark_variation(extent, self.varies_of(tensor))
        return extent

    def mark_variation(self, extent: Extent, variation: Variation) -> Extent:
        """Return the extent, marked as shift-variant if a variation, aligned at its last dimensions, spans the image.

        A constant that varies over channels (a bias) or within an unfolded kernel does not.
        """
        dims = [dim - len(variation) for dim, varies in enumerate(variation) if varies]
        return self.mark_shift_variant(extent) if any(map(extent.spans, dims)) else extent

    def mark_seam(self, extent: Extent, dim: int, positions: Integers) -> Extent:
        """Return the extent, marked as shift-variant if the `positions` written to along `dim` end amid the image."""
        # Writing every n-th position is periodic and gives no seam, nor does a region that ends in the outer quarters:
        # beside a border it acts as padding. So the middle half has to be written at even steps that reach both of its
        # ends, or not at all.
        length = extent.sizes[dim]
        if not extent.spans(dim):
            return extent
        places = positions[(positions >= length // 4) & (positions < length - length // 4)] - length // 4
        steps = np.diff(places, prepend=-1, append=length - 2 * (length // 4))
        even = len(places) == 0 or bool((steps[1:-1] == steps[1]).all() and max(steps[0], steps[-1]) <= steps[1])
        return extent if even else self.mark_shift_variant(extent)

    def mark_shift_variant(self, extent: Extent) -> Extent:
        """Return the extent, naming this layer as shift-variant: not shift-equivariant, or different with the size."""
        return extent if extent.shift_variant_layer else replace(extent, shift_variant_layer=self.layer)


Variation = tuple[bool, ...]
"""For each dimension of a constant, whether its values may differ along it."""

Result = Extent | Sequence[Extent | None] | None
"""One extent for all outputs, or one for each; None if they do not depend on the image."""
Rule = Callable[[Call], Result]
LayerRule = Callable[[Any, Extent], Extent]
AnyRule = TypeVar("AnyRule", bound=Callable[..., Any])

RULES: dict[str, Rule] = {}
LAYER_RULES: dict[type[nn.Module], LayerRule] = {}


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Register an operator's rule, as `@rule("aten::convolution")` above `f(call) -> Extent`, called once per axis."""

    def register(function: AnyRule) -> AnyRule:
        RULES.update({name if "::" in name else f"aten::{name}": function for name in names})
        return function

    return register


def layer_rule(kind: type[nn.Module]) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for a class of layers, `f(layer, extent) -> Extent`; the operators inside are then skipped."""

    def register(function: AnyRule) -> AnyRule:
        LAYER_RULES[kind] = function
        return function

    return register


def kernel_positions(
    outer: int, inner: int, kernel: int, stride: int = 1, before: int = 0, dilation: int = 1
) -> Integers:
    """Return the input positions that each output of a convolution or pooling reads (outer, kernel); BEYOND in padding.

    `outer` and `inner` are the sizes of the output and the input, `before` is the padding.
    """
    return _inside(np.arange(outer)[:, None] * stride - before + np.arange(kernel) * dilation, inner)


def transposed_positions(outer: int, inner: int, kernel: int, stride: int, before: int, dilation: int) -> Integers:
    """Return the input positions that contribute to each output of a transposed convolution (outer, kernel).

    `outer` and `inner` are the sizes of the output and the input.
    """
    # Input i adds its tap k to output i · stride + k · dilation - before; solved for i, which has to be whole.
    steps = np.arange(outer)[:, None] + before - np.arange(kernel) * dilation
    return np.where(steps % stride == 0, _inside(steps // stride, inner), NO_TAP)


def _inside(positions: Integers, length: int) -> Integers:
    """Return positions with BEYOND in place of those outside of `length`."""
    return np.where((positions >= 0) & (positions < length), positions, BEYOND)


# Rules by PyTorch's own tags, for operators without one of their own


def pointwise(call: Call) -> Extent:
    """Each position depends on that position of all inputs; shift-variant if a constant varies over positions."""
    return call.mark_varying(union(call.extents, max(len(shape) for shape in call.shapes)), call.tensors)


def reduction(call: Call) -> Extent:
    """The output depends on all positions along the reduced dimensions."""
    dim = call.arguments.get("dim")
    # PyTorch takes an empty list of dimensions for all of them.
    dims = listed(dim) if dim not in (None, []) else range(call.source.ndim)
    extent = call.mark_global(call.extent.reduce(dims))
    if call.arguments.get("keepdim") or not dims:
        return extent
    for dim in sorted((dim % call.source.ndim for dim in dims), reverse=True):
        extent = extent.squeeze(dim)
    return extent


# Rules of one expression

RESHAPES = "view _unsafe_view _reshape_alias squeeze unsqueeze alias detach"
PARTS = ("slice", "select", "slice_scatter", "select_scatter")
TRANSPOSES = "transpose t"

UNIFORM = (
    *("zeros", "ones", "empty", "full", "scalar_tensor", "zeros_like", "ones_like", "empty_like", "full_like", "fill"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "zero", "empty_strided", "new_empty_strided"),
)
"""Operators whose output is the same at all positions, or has yet to be written to."""

MAX_PAIRS = 1 << 21
"""The most elements of a matrix product that each keep an extent of their own."""

JOINS, BROADCASTS = ("cat", "stack", "repeat"), ("expand", "copy", "clone", "_to_copy", "alias", "detach", "where")
"""Operators that make a uniform output of uniform inputs, and operators that vary along the dimensions of an input."""

TABLE: dict[str, Rule] = {
    # Pointwise operators that lack PyTorch's tag:
    "where rrelu_with_noise hardswish log_sigmoid_forward complex polar floor_divide": pointwise,
    # These are pointwise in their first argument, and their other arguments cannot vary over positions.
    "_to_copy native_dropout _prelu_kernel bucketize _conj _neg_view": lambda call: call.extent,
    "view_as_real": lambda call: call.extent.unsqueeze(call.source.ndim),
    "view_as_complex": lambda call: call.extent.reduce([-1]).squeeze(-1),
    # They zero a triangle, as multiplication by a constant that varies along the last two dimensions would.
    "tril triu": lambda call: call.mark_variation(call.extent, (True, True)),
    "affine_grid_generator": lambda call: call.extent.collapsed(len(call.shapes[0])),
    # A cumulative sum reads only the positions up to its own, but no tile has all of them, so it counts as global.
    "cumsum cumprod cummax cummin logcumsumexp sort topk _fft_r2c _fft_c2r _fft_c2c": (
        lambda call: call.mark_global(call.extent.reduce(listed(call["dim"])))
    ),
    # Reductions that lack PyTorch's tag.
    "median nanmedian kthvalue mode": reduction,
    # `zeros_like(x)` takes the shape of x, not its values.
    " ".join((*UNIFORM, "rand_like", "randn_like")): lambda call: None,
    "copy": lambda call: (extent := call.extent_of(call["src"])) and extent.expand_dims(len(call.shapes[0])),
    "_softmax _log_softmax _safe_softmax": lambda call: call.mark_global(call.extent.reduce([call["dim"]])),
    RESHAPES: lambda call: call.extent.reshape(call.source.shape, call.shapes[0]),
    TRANSPOSES: lambda call: call.extent.permute(_transposition(call)),
    "permute": lambda call: call.extent.permute(call["dims"]),
    "expand": lambda call: call.extent.expand_dims(len(call.shapes[0])),
    "slice": lambda call: call.gather([(call["dim"], sliced(call)[:, None])]),
    "select": lambda call: call.gather([(call["dim"], sliced(call)[:, None])]).squeeze(call["dim"]),
    "flip": lambda call: call.gather((dim, np.arange(call.source.shape[dim])[::-1, None]) for dim in call["dims"]),
    "slice_scatter select_scatter": lambda call: written(call, call.source, call["src"]),
}
for _names, _rule in TABLE.items():
    rule(*_names.split())(_rule)


def _transposition(call: Call) -> list[int]:
    """Return the order of dimensions after `transpose`, or after `t`, which has no dimensions among its arguments."""
    order = list(range(call.source.ndim))
    first, second = call.arguments.get("dim0", -2), call.arguments.get("dim1", -1)
    order[first], order[second] = order[second], order[first]
    return order


@rule("roll")
def _roll(call: Call) -> Extent:
    """Positions are shifted circularly; without `dims` the flattened tensor would be, across rows."""
    if not call["dims"]:
        raise Unsupported("it rolls without dims")
    shifts = zip(listed(call["dims"]), listed(call["shifts"]), strict=True)
    lengths = call.source.shape
    return call.gather((dim, (np.arange(lengths[dim])[:, None] - shift) % lengths[dim]) for dim, shift in shifts)


@rule("repeat")
def _repeat(call: Call) -> Extent:
    extent = call.extent.expand_dims(len(call["repeats"]))
    for dim, length in enumerate(call.shapes[0]):
        extent = extent.gather(dim, np.arange(length)[:, None] % extent.sizes[dim])
    return extent


@rule("glu")
def _glu(call: Call) -> Extent:
    half = call.shapes[0][call["dim"]]
    return call.gather([(call["dim"], np.arange(half)[:, None] + np.array([0, half]))])


@rule("convolution")
def _convolution(call: Call) -> Extent:
    """Each output reads the kernel's positions of all channels of its group."""
    groups, channels = call["groups"], call.shapes[0][1]
    extent = call.extent
    # Groups stay apart where channels differ: after branches of different fields were concatenated, a depthwise
    # convolution does not mix them.
    if groups == 1 or extent.sizes[1] == 1:
        extent = extent.reduce([1])
    else:
        grouped = extent.table.reshape(3, extent.sizes[0], groups, -1, *extent.sizes[2:]).min(axis=3)
        extent = replace(extent, table=grouped.repeat(channels // groups, axis=2))
    count = call.source.ndim - 2
    positions = transposed_positions if call["transposed"] else kernel_positions
    settings = (listed(call[name], count) for name in ("stride", "padding", "dilation"))
    for dim, stride, padding, dilation in zip(range(2, 2 + count), *settings, strict=True):
        sizes = call.shapes[0][dim], call.source.shape[dim], call["weight"].shape[dim]
        extent = extent.gather(dim, positions(*sizes, stride=stride, before=padding, dilation=dilation))
    return extent


@rule("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d")
def _pool(call: Call) -> Extent:
    """Each output reads the positions of its window."""
    count = _spatial_dims(call)
    kernels = listed(call["kernel_size"], count)
    strides = listed(call["stride"], count) or kernels
    paddings = listed(call["padding"], count)
    dilations = listed(call.arguments.get("dilation", 1), count)
    extent = call.extent
    # Global by its kernel, not by what it covers: a 3×3 pool in a small image behind a large field covers all of it,
    # too. With padding a kernel as large as the map still slides over it.
    is_global = True
    for dim, *kernel in zip(range(-count, 0), kernels, strides, paddings, dilations, strict=True):
        inner = call.source.shape[dim]
        is_global &= (kernel[0] >= inner and not kernel[2]) or extent.sizes[dim] == 1
        extent = extent.gather(dim, kernel_positions(call.shapes[0][dim], inner, *kernel))
    return call.mark_global(extent) if is_global else extent


@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d")
@rule("adaptive_max_pool3d")
def _adaptive_pool(call: Call) -> Extent:
    """Each output pools its share of the input, which grows with the image."""
    extent = call.extent
    for dim in range(-_spatial_dims(call), 0):
        outer, inner = call.shapes[0][dim], call.source.shape[dim]
        if outer != inner and extent.sizes[dim] > 1:
            # Shares overlap unless `outer` divides `inner`: floor of the start and ceiling of the end, as in PyTorch.
            start = np.arange(outer) * inner // outer
            stop = -(-(np.arange(outer) + 1) * inner // outer)
            taps = start[:, None] + np.arange((stop - start).max())
            extent = extent.gather(dim, np.where(taps < stop[:, None], taps, NO_TAP))
            # A share of the image has no size in pixels that would hold for other images, so it counts as global.
            extent = replace(extent, global_layer=extent.global_layer or call.layer)
            extent = call.mark_shift_variant(extent)
    return extent


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
@rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def _pad(call: Call) -> Extent:
    """Positions are shifted by the padding, which repeats others or depends on no pixel; cropping is negative."""
    pads = call["pad" if call.name == "aten::constant_pad_nd" else "padding"]

    def positions(dim: int, before: int) -> Integers:
        last = call.source.shape[dim] - 1
        wanted = np.arange(call.shapes[0][dim]) - before
        if "reflection" in call.name:
            # Folded at 0 and at `last`, once each, for PyTorch pads by less than the size.
            wanted = last - np.abs(last - np.abs(wanted))
        elif "replication" in call.name:
            wanted = wanted.clip(0, last)
        return _inside(wanted, last + 1)[:, None]

    # From the last dimension on, before and after: (left, right, top, bottom).
    return call.gather((-1 - pair, positions(-1 - pair, before)) for pair, before in enumerate(pads[::2]))


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
@rule("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d")
@rule("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d")
@rule("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
def _upsample(call: Call) -> Extent:
    """Interpolation to sizes or by scales; taps whose weight is zero do not count."""
    extent = call.extent
    count = _spatial_dims(call)
    scales = [value for name, value in call.arguments.items() if name.startswith("scales")]
    # In inference mode the overload `.vec` comes here, which has one list in place of `scales_h` and `scales_w`.
    if "scale_factors" in call.arguments:
        scales = call["scale_factors"] or [None] * count
    for dim, scale in zip(range(-count, 0), scales, strict=True):
        outer, inner = call.shapes[0][dim], call.source.shape[dim]
        corners = bool(call.arguments.get("align_corners"))
        # The scale and the ratio of sizes agree unless floor() rounded an odd size; PyTorch then uses the scale. One of
        # 1/3 is a float: limit_denominator gives back the fraction that was meant.
        step = 1 / Fraction(scale).limit_denominator(1 << 16) if scale else Fraction(inner, outer)
        # With aligned corners the step (inner - 1) / (outer - 1) differs with the image's size.
        if corners:
            step = Fraction(inner - 1, outer - 1) if outer > 1 else Fraction(0)
            extent = call.mark_shift_variant(extent) if outer != inner and extent.sizes[dim] > 1 else extent
        elif not scale and "nearest" not in call.name and step.denominator > max(16, outer // 4):
            # By 129/257, say, weights repeat only after 257 positions: they are others at nearly each position.
            extent = call.mark_shift_variant(extent)
        extent = extent.gather(dim, _interpolation_taps(call.name, outer, inner, step, corners))
    return extent


def _interpolation_taps(name: str, outer: int, inner: int, step: Fraction, corners: bool) -> Integers:
    """Return the input positions with a weight other than zero (outer, taps), for steps of `step` input positions."""
    # In integers: a weight that is zero exactly but not in floating point would add a pixel to the field.
    up, down = step.numerator, step.denominator
    places = np.arange(outer)
    last = inner - 1
    if name.endswith("_aa"):
        # Antialiased: the filter is as many times wider as the image gets smaller. Distances of pixels' centres, times
        # twice the denominator, are compared with its half width; a cubic one is zero at a distance of one, too.
        unit, half_width = 2 * max(up, down), 2 if "cubic" in name else 1
        first = ((2 * places + 1) * up - half_width * unit) // (2 * down)
        taps = first[:, None] + np.arange(half_width * unit // down + 2)
        distances = np.abs((2 * taps + 1) * down - (2 * places[:, None] + 1) * up)
        weighed = (distances < half_width * unit) & ((distances != unit) | (half_width == 1))
        return np.where(weighed & (taps >= 0) & (taps <= last), taps, NO_TAP)
    if "nearest" in name:
        below = (2 * places + 1) * up // (2 * down) if "exact" in name else places * up // down
        return below.clip(0, last)[:, None]
    # Twice the position times the denominator, so that half pixels stay integers.
    doubled = 2 * places * up if corners else (2 * places + 1) * up - down
    if "cubic" not in name:
        doubled = doubled.clip(0)
    below, rest = doubled // (2 * down), doubled % (2 * down)
    offsets = np.arange(-1, 3) if "cubic" in name else np.arange(2)
    taps = (below[:, None] + offsets).clip(0, last)
    return np.where((rest[:, None] > 0) | (offsets == 0), taps, NO_TAP)


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
@rule("_batch_norm_with_update", "_batch_norm_no_update", "native_group_norm", "native_layer_norm")
def _normalization(call: Call) -> Result:
    """All positions that are normalized together mix; the other outputs, mean and variance, count as constants."""
    extent, shape = call.extent, call.source.shape
    if "group_norm" in call.name:
        grouped = (call["N"], call["group"], call["C"] // call["group"], *shape[2:])
        extent = extent.reshape(shape, grouped).reduce(range(2, len(grouped))).reshape(grouped, shape)
    elif "batch_norm" not in call.name:
        extent = extent.reduce(range(-len(call["normalized_shape"]), 0))
    elif call.arguments.get("training"):
        extent = extent.reduce([dim for dim in range(len(shape)) if dim != 1])
    else:
        return [extent, *[None] * (len(call.shapes) - 1)]
    return [call.mark_global(extent), *[None] * (len(call.shapes) - 1)]


@rule("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "addbmm")
def _matrix_product(call: Call) -> Extent:
    """Element (i, j) depends on row i of the left factor, column j of the right one, and (i, j) of a summand."""
    tensors = [tensor for tensor in call.tensors if tensor.ndim]
    *added, left, right = tensors
    if call.name in ("aten::mv", "aten::dot", "aten::addbmm"):
        raise Unsupported("only products of matrices are supported")
    parts = [extent.expand_dims(len(call.shapes[0])) for part in added if (extent := call.extent_of(part))]
    if extent := call.extent_of(left):
        parts.append(call.mark_global(extent.reduce([-1])))
    if extent := call.extent_of(right):
        parts.append(call.mark_global(extent.reduce([-2])))
    shape = np.broadcast_shapes(*(part.sizes for part in parts))
    if shape[-1] * shape[-2] > MAX_PAIRS and max(shape[:-2], default=1) == 1:
        # Attention scores of so many patches: what each pair depends on would fill a table of patch × patch.
        parts = [part.collapsed() for part in parts]
        return call.mark_global(union(parts, len(call.shapes[0])))
    return call.mark_varying(union(parts, len(call.shapes[0])), added)


@rule("split", "split_with_sizes", "unbind")
def _split(call: Call) -> Result:
    """Each output takes its own range of positions."""
    dim, extent = call["dim"] % call.source.ndim, call.extent
    if call.name == "aten::unbind":
        return [extent.gather(dim, np.array([[place]])).squeeze(dim) for place in range(call.source.shape[dim])]
    lengths = [shape[dim] for shape in call.shapes]
    starts = np.cumsum([0, *lengths[:-1]])
    return [extent.gather(dim, start + np.arange(n)[:, None]) for start, n in zip(starts, lengths, strict=True)]


@rule("cat", "stack")
def _cat(call: Call) -> Extent:
    """Each position depends on the part that it comes from; a seam amid the image is shift-variant."""
    dim, stacked = call["dim"] % len(call.shapes[0]), call.name == "aten::stack"
    total = call.shapes[0][dim]
    joined: Extent | None = None
    start = 0
    for part in call["tensors"]:
        extent, length = call.extent_of(part), 1 if stacked else part.shape[dim]
        places = np.arange(start, start + length)
        if extent and stacked:
            extent = extent.unsqueeze(dim)
        if extent and joined:
            joined = joined.scatter(extent, dim, places, total)
            joined = joined if stacked else call.mark_seam(joined, dim, places)
        elif extent:
            joined = extent.gather(dim, kernel_positions(total, length, kernel=1, before=start))
        start += length
    assert joined is not None, "a rule is called only if some input depends on the image"
    # A constant part is checked against the extent of the whole, so it comes last. That it varies along `dim` does not
    # matter: there it lies beside the other parts, not on them.
    for part in call["tensors"]:
        if not call.extent_of(part):
            variation = call.varies_of(part)
            joined = call.mark_variation(joined, (*variation[:dim], False, *variation[dim + (not stacked) :]))
    return joined


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def _shuffle(call: Call) -> Extent:
    """The shape's dimensions are split, reordered and merged, as the operators are defined."""
    *batch, channels, height, width = call.source.shape
    if call.name == "aten::pixel_shuffle":
        factor = call["upscale_factor"]
        apart, order = (channels // factor**2, factor, factor, height, width), (0, 3, 1, 4, 2)
    elif call.name == "aten::pixel_unshuffle":
        factor = call["downscale_factor"]
        apart, order = (channels, height // factor, factor, width // factor, factor), (0, 2, 4, 1, 3)
    else:
        apart, order = (call["groups"], channels // call["groups"], height, width, 1), (1, 0, 2, 3, 4)
    split = (*batch, *apart)
    moved = [*range(len(batch)), *(len(batch) + dim for dim in order)]
    extent = call.extent.reshape(call.source.shape, split).permute(moved)
    return extent.reshape([split[dim] for dim in moved], call.shapes[0])


@rule("im2col")
def _im2col(call: Call) -> Extent:
    """Blocks (B, C·kernel, blocks) of a map (B, C, H, W)."""
    taps, apart, joint = _blocks(call, *call.source.shape)
    # Each tap of the kernel is a channel of the output, and a model may take the taps apart again, as `fold` does. If
    # that takes too large a table, their union gives the same for a model that mixes all channels next (a convolution
    # written as a matrix product), and a bound for others.
    try:
        by_tap = call.gather((dim, chosen.T.reshape(-1, 1)) for dim, chosen in zip((2, 3), taps, strict=True))
        by_tap = by_tap.reshape(joint, apart).permute(BLOCKS)
        return by_tap.reshape([apart[dim] for dim in BLOCKS], call.shapes[0])
    except Unsupported:
        extent = call.gather(zip((2, 3), taps, strict=True)).reduce([1])
        return extent.reshape((apart[0], 1, apart[3], apart[5]), (apart[0], 1, apart[3] * apart[5]))


@rule("col2im")
def _col2im(call: Call) -> Extent:
    """A map (B, C, H, W) from overlapping blocks: the sum of all taps that lie on a position."""
    taps, apart, joint = _blocks(call, *call.shapes[0])
    extent = call.extent.reshape(call.source.shape, [apart[dim] for dim in BLOCKS]).permute(BLOCKS)
    extent = extent.reshape(apart, joint)
    kernels, *settings = (listed(call[name], 2) for name in ("kernel_size", "stride", "padding", "dilation"))
    for dim, chosen, kernel, *setting in zip((2, 3), taps, kernels, *settings, strict=True):
        block = transposed_positions(call.shapes[0][dim], len(chosen), kernel, *setting)
        extent = extent.gather(dim, np.where(block >= 0, np.arange(kernel) * len(chosen) + block, block))
    return extent


BLOCKS = (0, 1, 2, 4, 3, 5)
"""The permutation from B, C, kernel height, rows, kernel width, columns to both of the kernel before rows, columns."""


def _blocks(call: Call, batch: int, channels: int, *lengths: int) -> tuple[list[Integers], list[int], list[int]]:
    """Return the positions (blocks, taps) that blocks of a map (B, C, H, W) hold along both axes, and two shapes.

    The first shape has the taps of the kernel in dimensions of their own, the second has them merged with the blocks.
    """
    taps = []
    settings = (listed(call[name], 2) for name in ("kernel_size", "stride", "padding", "dilation"))
    for length, kernel, stride, padding, dilation in zip(lengths, *settings, strict=True):
        count = (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        taps.append(kernel_positions(count, length, kernel, stride, padding, dilation))
    (rows, height), (columns, width) = (chosen.shape for chosen in taps)
    return taps, [batch, channels, height, rows, width, columns], [batch, channels, height * rows, width * columns]


@rule("unfold")
def _unfold(call: Call) -> Extent:
    """Sliding windows along one dimension, laid out along a new last one."""
    dim, size = call["dimension"] % call.source.ndim, call["size"]
    count = call.shapes[0][dim]
    taps = kernel_positions(count, call.source.shape[dim], size, call["step"])
    shape = call.source.shape
    extent = call.extent.gather(dim, taps.reshape(count * size, 1))
    extent = extent.reshape(
        (*shape[:dim], count * size, *shape[dim + 1 :]), (*shape[:dim], count, size, *shape[dim + 1 :])
    )
    return extent.permute([*range(dim + 1), *range(dim + 2, len(shape) + 1), dim + 1])


@rule("as_strided")
def _as_strided(call: Call) -> Extent:
    """The same memory under another shape and other strides."""
    extent, source = call.extent, call.source
    # If all positions are alike, so are those of any view.
    if max(extent.sizes, default=1) == 1:
        return extent.collapsed(len(call.shapes[0]))
    if source.numel() > MAX_VALUES or not source.numel():
        raise Unsupported("it rearranges too many values")
    # Strides say nothing about rows and columns. So the place in memory of each wanted element is looked up among those
    # of the source, and elements are gathered one by one.
    start = int(source.storage_offset())
    places = _offsets(source.shape, source.stride(), start)
    wanted = _offsets(call["size"], call["stride"], start if (offset := call["storage_offset"]) is None else offset)
    order = np.argsort(places)
    index = np.searchsorted(places, wanted, sorter=order).clip(0, len(places) - 1)
    chosen = order[index]
    if (places[chosen] != wanted).any():
        raise Unsupported("it reads memory beside its argument")
    flat = extent.reshape(source.shape, (source.numel(),)).gather(0, chosen[:, None])
    return flat.reshape((len(chosen),), call.shapes[0])


def _offsets(shape: Sequence[int], strides: Sequence[int], offset: int) -> Integers:
    """Return the place in memory of each element of a tensor, in row-major order."""
    total = np.array(offset)
    for length, stride in zip(shape, strides, strict=True):
        total = total[..., None] + np.arange(length) * stride
    return total.reshape(-1)


@rule("gather", "index_select")
def _gather(call: Call) -> Extent:
    """The index chooses among all positions along `dim`, so the output depends on each of them, and on the index."""
    dim, index = call["dim"] % call.source.ndim, call["index"]
    source, chooser = call.extent_of(call.source), call.extent_of(index)
    # A constant index has no values on the meta device. Among channels the union of all positions is a bound that does
    # no harm, but across the image it would be the whole image where the model may take a single row.
    if not chooser and source and source.spans(dim):
        raise Unsupported("which positions it takes is known to its values alone")
    # The index of `gather` has the dimensions of the output, that of `index_select` only `dim`.
    parts = [chooser] if chooser and index.ndim == call.source.ndim else []
    if chooser and not parts:
        parts = [chooser.reshape(index.shape, [len(index) if axis == dim else 1 for axis in range(call.source.ndim)])]
    if source:
        source = source.reduce([dim])
        for axis, length in enumerate(call.shapes[0]):
            source = source if axis == dim else source.gather(axis, np.arange(length)[:, None])
        parts.append(source)
    return call.mark_global(union(parts, len(call.shapes[0])))


@rule("index")
def _index(call: Call) -> Extent:
    """Advanced indexing with constants; raises Unsupported along dimensions that run across the image."""
    extent = call.extent
    dims = [dim for dim, index in enumerate(call["indices"]) if index is not None]
    if any(extent.spans(dim) for dim in dims):
        raise Unsupported("which positions it takes is known to its values alone")
    # The indexed dimensions give way to those of the broadcast indices: in their place if they are adjacent, else in
    # front, as in NumPy.
    count = len(call.shapes[0]) - call.source.ndim + len(dims)
    first = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    extent = extent.reduce(dims)
    for dim in reversed(dims):
        extent = extent.squeeze(dim)
    for _ in range(count):
        extent = extent.unsqueeze(first)
    return extent


@rule("grid_sampler_2d", "grid_sampler_3d")
def _grid_sample(call: Call) -> Extent:
    """Each position depends on its own place in the grid and, because that may point anywhere, on the whole source."""
    parts = [extent.reduce(range(2, call.source.ndim))] if (extent := call.extent_of(call.source)) else []
    if grid := call.extent_of(call["grid"]):
        last = call.source.ndim - 1
        parts.append(grid.reduce([last]).permute([0, last, *range(1, last)]))
    return call.mark_global(union(parts, call.source.ndim))


@rule("max_unpool2d")
def _max_unpool(call: Call) -> Extent:
    """Each position depends on the windows of the max-pooling that contained it."""
    name, pool = call.origin_of(call["indices"]) or ("", {})
    # The call itself does not tell how the windows overlapped: kernel, stride and padding are those of the pooling.
    if name != "aten::max_pool2d_with_indices":
        raise Unsupported("its indices do not come straight from max-pooling")
    extent = union(call.extents, call.source.ndim)
    kernels = listed(pool["kernel_size"], 2)
    settings = kernels, listed(pool["stride"], 2) or kernels, listed(pool["padding"], 2), listed(pool["dilation"], 2)
    for dim, *setting in zip((-2, -1), *settings, strict=True):
        extent = extent.gather(dim, transposed_positions(call.shapes[0][dim], call.source.shape[dim], *setting))
    return extent


def variation(call: Call, is_pointwise: bool, is_view: bool) -> list[Variation]:
    """Return along which dimensions each output of a call may vary none of whose inputs depends on the image."""
    # Without values only the operator tells. An operator that is not known to keep uniform tensors uniform, or to vary
    # only with its inputs, may vary along all dimensions: `arange` does, and exact tiles must not rely on a guess.
    name = call.name.removeprefix("aten::")
    inputs = [call["src"]] if name == "copy" else call.tensors
    everywhere = [tuple(length > 1 for length in shape) for shape in call.shapes]
    if name in UNIFORM or (inputs and (is_view or name in JOINS) and not any(any(call.varies_of(t)) for t in inputs)):
        return [(False,) * len(shape) for shape in call.shapes]
    if not is_pointwise and name not in BROADCASTS:
        return everywhere
    # Broadcasting aligns the last dimensions, so flags are read from the end.
    flags = [call.varies_of(tensor)[::-1] for tensor in inputs]
    aligned = [any(varies[dim : dim + 1] == (True,) for varies in flags) for dim in range(len(call.shapes[0]))]
    return [tuple(aligned[::-1])] * len(call.shapes)


def sliced(call: Call) -> Integers:
    """Return the positions along `dim` that `slice`, `select` or their scatter operators choose."""
    length = call.source.shape[call["dim"]]
    if "index" in call.arguments:
        return np.array([call["index"] % length])
    return np.arange(length)[call["start"] : call["end"] : call["step"]]


def written(call: Call, base: Tensor, source: Tensor) -> Extent | None:
    """Return the extent of `base` after `source` was written to its view, which `call` made; None for a constant.

    Raises Unsupported if that cannot be told.
    """
    name = call.name.removeprefix("aten::")
    before, extent = call.extent_of(base), call.extent_of(source)
    # A reshaped or transposed view covers all of the base, so nothing of what that depended on before is left.
    if name in RESHAPES.split():
        return extent and extent.reshape(call.shapes[0], call.source.shape)
    if name in TRANSPOSES.split():
        return extent and extent.permute(_transposition(call))
    if name == "permute":
        return extent and extent.permute(np.argsort([dim % base.ndim for dim in call["dims"]]).tolist())
    if name not in PARTS:
        raise Unsupported("it is written to through a view of it")
    dim = call["dim"] % base.ndim
    if extent and "index" in call.arguments:
        extent = extent.expand_dims(base.ndim - 1).unsqueeze(dim)
    extent = extent and extent.expand_dims(base.ndim)
    positions, length = sliced(call), base.shape[dim]
    if before:
        result = call.mark_seam(before.scatter(extent, dim, positions, length), dim, positions)
        return result if extent else call.mark_variation(result, _of_part(call, call.varies_of(source)))
    if not extent:
        return None
    # The constant pads what is written into it: outside of that range a larger image may have pixels (BEYOND), while
    # between every n-th position there is nothing to read (NO_TAP).
    table = np.full(length, BEYOND)
    table[positions.min() : positions.max()] = NO_TAP
    table[positions] = np.arange(len(positions))
    return call.mark_varying(extent.gather(dim, table[:, None]), [base])


def written_variation(call: Call, base: Tensor, source: Tensor) -> Variation | None:
    """Return the variation of a constant after another one was written to its view; None if that cannot be told."""
    if call.name.removeprefix("aten::") not in PARTS:
        return None
    of_part, dim = _of_part(call, call.varies_of(source)), call["dim"] % base.ndim
    of_part = (False,) * (base.ndim - len(of_part)) + of_part
    pairs = zip(call.varies_of(base), of_part, strict=True)
    return tuple(before or after or axis == dim for axis, (before, after) in enumerate(pairs))


def _of_part(call: Call, variation: Variation) -> Variation:
    """Return the variation of a part, with the dimension that `select` has dropped put back in."""
    dim = call["dim"] % call.source.ndim - call.source.ndim + 1
    if "index" not in call.arguments:
        return variation
    return (*variation, False) if dim == 0 else (*variation[:dim], False, *variation[dim:])


def _spatial_dims(call: Call) -> int:
    """Return the number of spatial dimensions in an operator's name, such as 2 of `max_pool2d`."""
    digit = re.search(r"(\d)d", call.name)
    assert digit
    return int(digit[1])


def listed(value: Any, count: int | None = None) -> list[int]:
    """Return a number or a list as a list, of `count` numbers if it holds one that stands for all dimensions."""
    listed = list(value) if isinstance(value, list | tuple) else [value]
    return listed * count if count and len(listed) == 1 else listed
