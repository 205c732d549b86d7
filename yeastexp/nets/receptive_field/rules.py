"""What the output of each operator sees of its inputs: a rule an operator, most of them a table of positions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from yeastexp.nets.receptive_field.reach import CannotFollow, Integers, Reach, joined


@dataclass(frozen=True)
class Call:
    """One call of an operator, as its rule sees it, along one axis of the image."""

    name: str
    layer: str
    arguments: Mapping[str, Any]
    """By the operator's own names, defaults filled in."""
    shapes: tuple[tuple[int, ...], ...]
    """Of the outputs."""
    pixels: int
    """Of the image along the axis."""
    reach_of: Callable[[Tensor], Reach | None]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def source(self) -> Tensor:
        """The first argument."""
        found: Tensor = next(iter(self.arguments.values()))
        return found

    @property
    def tensors(self) -> list[Tensor]:
        """All arguments that are tensors, those in lists too."""
        listed = (value if isinstance(value, list | tuple) else [value] for value in self.arguments.values())
        return [one for values in listed for one in values if isinstance(one, Tensor)]

    @property
    def reaches(self) -> list[Reach]:
        """Those of the arguments that depend on the image."""
        return [reach for tensor in self.tensors if (reach := self.reach_of(tensor))]

    @property
    def reach(self) -> Reach:
        """That of the first argument, which alone may depend on the image; CannotFollow where another does."""
        reach = self.reach_of(self.source)
        if reach is None or len(self.reaches) > 1:
            raise CannotFollow("its weights depend on the image")
        return reach

    def marked(self, reach: Reach) -> Reach:
        """The same, naming this layer where every position now sees the whole image."""
        return replace(reach, whole=self.layer) if not reach.whole and reach.covers(self.pixels) else reach

    def uneven(self, reach: Reach) -> Reach:
        """The same, naming this layer as one that does not do the same everywhere, or at every size."""
        return reach if reach.uneven else replace(reach, uneven=self.layer)


Found = Reach | Sequence[Reach | None] | None
"""What all outputs see, or what each of them sees."""
Rule = Callable[[Call], Found]
LayerRule = Callable[[Any, Reach], Reach]
Made = TypeVar("Made", bound=Callable[..., Any])

RULES: dict[str, Rule] = {}
LAYER_RULES: dict[type[nn.Module], LayerRule] = {}


def rule(*names: str) -> Callable[[Made], Made]:
    """Register what operators see: `@rule("aten::convolution")` above `f(call) -> Reach`, asked once for each axis."""

    def register(made: Made) -> Made:
        RULES.update({name if "::" in name else f"aten::{name}": made for name in names})
        return made

    return register


def layer_rule(kind: type[nn.Module]) -> Callable[[Made], Made]:
    """Register what a class of layers sees, whose inside is then not looked at: `f(layer, reach) -> Reach`."""

    def register(made: Made) -> Made:
        LAYER_RULES[kind] = made
        return made

    return register


def windows(outer: int, inner: int, kernel: int, stride: int = 1, before: int = 0, dilation: int = 1) -> Integers:
    """Where each of `outer` windows over `inner` positions looks (outer, kernel); -1 in the padding."""
    return _inside(np.arange(outer)[:, None] * stride - before + np.arange(kernel) * dilation, inner)


def transposed_windows(outer: int, inner: int, kernel: int, stride: int, before: int, dilation: int) -> Integers:
    """Which of `inner` positions reach each of `outer` positions of a transposed convolution (outer, kernel)."""
    steps = np.arange(outer)[:, None] + before - np.arange(kernel) * dilation
    return np.where(steps % stride == 0, _inside(steps // stride, inner), -1)


def _inside(positions: Integers, length: int) -> Integers:
    return np.where((positions >= 0) & (positions < length), positions, -1)


def pointwise(call: Call) -> Reach:
    """Each position sees what it saw in any input; uneven where a map of weights is laid over positions."""
    dimensions = max(len(shape) for shape in call.shapes)
    made = joined(call.reaches, dimensions)
    for tensor in call.tensors:
        last = range(-1, -1 - min(2, tensor.ndim), -1)
        if not call.reach_of(tensor) and any(tensor.shape[dim] > 1 and made.sizes[dim] > 1 for dim in last):
            made = call.uneven(made)
    return made


rule("masked_fill", "where", "rrelu_with_noise")(pointwise)  # which lack PyTorch's own tag of such operators


def reduction(call: Call) -> Reach:
    """All positions along the reduced dimensions see what any of them saw."""
    dim = call.arguments.get("dim")
    dims = _listed(dim) if dim not in (None, []) else range(call.source.ndim)
    reach = call.marked(call.reach.over(dims))
    if call.arguments.get("keepdim") or not dims:
        return reach
    kept = [one for one in range(call.source.ndim) if one not in {dim % call.source.ndim for dim in dims}]
    return replace(reach, ends=reach.ends.reshape(2, *(reach.sizes[dim] for dim in kept)))


@rule("_softmax", "_log_softmax", "_safe_softmax")
def _softmax(call: Call) -> Reach:
    return call.marked(call.reach.over([call["dim"]]))


@rule("lift_fresh_copy", "_to_copy", "native_dropout", "prelu", "_prelu_kernel", "contiguous")
def _same(call: Call) -> Reach:
    return call.reach


@rule("copy")
def _copy(call: Call) -> Reach | None:
    reach = call.reach_of(call["src"])
    return reach and reach.aligned(len(call.shapes[0]))


@rule("zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full")
@rule("fill", "zero", "rand_like", "randn_like", "empty_strided", "new_empty_strided")
def _nothing(call: Call) -> None:
    return None


@rule("convolution")
def _convolution(call: Call) -> Reach:
    groups, channels = call["groups"], call.shapes[0][1]
    reach = call.reach
    if groups == 1 or reach.sizes[1] == 1:
        reach = reach.over([1])
    else:
        grouped = reach.ends.reshape(2, reach.sizes[0], groups, -1, *reach.sizes[2:]).min(axis=3)
        reach = replace(reach, ends=grouped.repeat(channels // groups, axis=2))
    count = call.source.ndim - 2
    table = transposed_windows if call["transposed"] else windows
    settings = (_listed(call[name], count) for name in ("stride", "padding", "dilation"))
    for dim, stride, padding, dilation in zip(range(2, 2 + count), *settings, strict=True):
        sizes = call.shapes[0][dim], call.source.shape[dim], call["weight"].shape[dim]
        reach = reach.taken(dim, table(*sizes, stride=stride, before=padding, dilation=dilation))
    return reach


@rule("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d")
def _pool(call: Call) -> Reach:
    count = _axes(call)
    kernels = _listed(call["kernel_size"], count)
    strides = _listed(call["stride"], count) or kernels
    paddings = _listed(call["padding"], count)
    dilations = _listed(call.arguments.get("dilation", 1), count)
    reach = call.reach
    everything = True
    for dim, kernel, stride, padding, dilation in zip(
        range(-count, 0), kernels, strides, paddings, dilations, strict=True
    ):
        inner = call.source.shape[dim]
        everything &= kernel >= inner or reach.sizes[dim] == 1
        reach = reach.taken(dim, windows(call.shapes[0][dim], inner, kernel, stride, padding, dilation))
    return call.marked(reach) if everything else reach


@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_max_pool2d")
@rule("adaptive_max_pool3d")
def _adaptive_pool(call: Call) -> Reach:
    reach = call.reach
    for dim in range(-_axes(call), 0):
        outer, inner = call.shapes[0][dim], call.source.shape[dim]
        if outer != inner and reach.sizes[dim] > 1:
            start = np.arange(outer) * inner // outer
            stop = -(-(np.arange(outer) + 1) * inner // outer)
            taps = start[:, None] + np.arange((stop - start).max())
            reach = reach.taken(dim, np.where(taps < stop[:, None], taps, -1))
            reach = call.uneven(replace(reach, whole=reach.whole or call.layer))  # it grows with the image
    return reach


@rule("constant_pad_nd")
def _constant_pad(call: Call) -> Reach:
    pads = call["pad"]
    reach = call.reach
    for pair in range(len(pads) // 2):
        dim = -1 - pair
        reach = reach.taken(dim, windows(call.shapes[0][dim], call.source.shape[dim], kernel=1, before=pads[2 * pair]))
    return reach


@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
@rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def _border_pad(call: Call) -> Reach:
    reach = call.reach
    for pair in range(_axes(call)):
        dim = -1 - pair
        inner = call.source.shape[dim]
        wanted = np.arange(call.shapes[0][dim]) - call["padding"][2 * pair]
        if call.name.startswith("aten::replication"):
            positions = wanted.clip(0, inner - 1)
        else:
            positions = (inner - 1) - np.abs((inner - 1) - np.abs(wanted))
        reach = reach.taken(dim, positions[:, None])
    return reach


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
@rule("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d")
@rule("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d")
def _upsample(call: Call) -> Reach:
    """Interpolation at sizes and scales; taps whose weight is zero do not count."""
    reach = call.reach
    count = _axes(call)
    scales = [value for name, value in call.arguments.items() if name.startswith("scales")]
    for dim, scale in zip(range(-count, 0), scales, strict=True):
        outer, inner = call.shapes[0][dim], call.source.shape[dim]
        corners = bool(call.arguments.get("align_corners"))
        # The two are one where the scale fits the size; only floor() of odd sizes sets them apart.
        step = 1 / Fraction(scale).limit_denominator(1 << 16) if scale else Fraction(inner, outer)
        if corners:
            step = Fraction(inner - 1, outer - 1) if outer > 1 else Fraction(0)
            reach = call.uneven(reach) if outer != inner and reach.sizes[dim] > 1 else reach
        reach = reach.taken(dim, _taps(call.name, outer, inner, step, corners))
    return reach


def _taps(name: str, outer: int, inner: int, step: Fraction, corners: bool) -> Integers:
    up, down = step.numerator, step.denominator
    places = np.arange(outer)
    last = inner - 1
    if "nearest" in name:
        exact = "exact" in name
        below = (2 * places + 1) * up // (2 * down) if exact else places * up // down
        return below.clip(0, last)[:, None]
    # Twice the position times the denominator, so that half pixels stay integers.
    doubled = 2 * places * up if corners else (2 * places + 1) * up - down
    if "cubic" not in name:
        doubled = doubled.clip(0)
    below, rest = doubled // (2 * down), doubled % (2 * down)
    offsets = np.arange(-1, 3) if "cubic" in name else np.arange(2)
    taps = (below[:, None] + offsets).clip(0, last)
    return np.where((rest[:, None] > 0) | (offsets == 0), taps, -1)


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
@rule("_batch_norm_with_update", "_batch_norm_no_update")
def _batch_norm(call: Call) -> Found:
    if not call.arguments.get("training"):
        return call.reach, None, None
    others = [dim for dim in range(call.source.ndim) if dim != 1]
    return call.marked(call.reach.over(others)), None, None


@rule("native_group_norm")
def _group_norm(call: Call) -> Found:
    reach, groups = call.reach, call["group"]
    apart_shape = (call["N"], groups, call["C"] // groups, *call.source.shape[2:])
    apart = reach.reshaped(call.source.shape, apart_shape)
    over = apart.over(range(2, len(apart.sizes)))
    return call.marked(over.reshaped(apart_shape, call.source.shape)), None, None


@rule("native_layer_norm", "_fused_rms_norm")
def _layer_norm(call: Call) -> Found:
    dims = range(-len(call["normalized_shape"]), 0)
    return [call.marked(call.reach.over(dims)), *[None] * (len(call.shapes) - 1)]


@rule("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "linear", "addbmm")
def _matrix_product(call: Call) -> Reach:
    """Rows of one see along the columns of the other; what is added is seen as it lies."""
    tensors = [tensor for tensor in call.tensors if tensor.ndim]
    *added, left, right = tensors[:2] if call.name == "aten::linear" else tensors
    if call.name in ("aten::mv", "aten::dot", "aten::addbmm"):
        raise CannotFollow("only sums of matrices are followed")
    parts = [reach.aligned(len(call.shapes[0])) for one in added if (reach := call.reach_of(one))]
    if reach := call.reach_of(left):
        parts.append(call.marked(reach.over([-1])))
    if reach := call.reach_of(right):
        parts.append(call.marked(reach.over([-2])))
    return joined(parts, len(call.shapes[0]))


RESHAPES = ("view", "_unsafe_view", "_reshape_alias", "reshape", "squeeze", "unsqueeze", "flatten", "alias", "detach")


@rule(*RESHAPES)
def _view(call: Call) -> Reach:
    return call.reach.reshaped(call.source.shape, call.shapes[0])


@rule("permute")
def _permute(call: Call) -> Reach:
    return call.reach.permuted(call["dims"])


TRANSPOSES = ("transpose", "t", "swapaxes", "numpy_T", "mT")


@rule(*TRANSPOSES)
def _transpose(call: Call) -> Reach:
    count = call.source.ndim
    first, second = (call.arguments.get("dim0", -2) % count, call.arguments.get("dim1", -1) % count)
    order = list(range(count))
    order[first], order[second] = second, first
    return call.reach.permuted(order)


@rule("expand")
def _expand(call: Call) -> Reach:
    return call.reach.aligned(len(call.shapes[0]))


@rule("repeat")
def _repeat(call: Call) -> Reach:
    reach = call.reach.aligned(len(call["repeats"]))
    for dim, length in enumerate(call.shapes[0]):
        reach = reach.taken(dim, np.arange(length)[:, None] % reach.sizes[dim])
    return reach


@rule("slice")
def _slice(call: Call) -> Reach:
    return call.reach.taken(call["dim"], sliced(call)[:, None])


def sliced(call: Call) -> Integers:
    """The positions that `slice`, `select` and their like name."""
    length = call.source.shape[call["dim"]]
    if "index" in call.arguments:
        return np.array([call["index"] % length])
    return np.arange(length)[call["start"] : call["end"] : call["step"]]


@rule("select")
def _select(call: Call) -> Reach:
    reach = call.reach.taken(call["dim"], sliced(call)[:, None])
    return replace(reach, ends=reach.ends.squeeze(1 + call["dim"] % call.source.ndim))


@rule("split", "split_with_sizes", "unbind")
def _split(call: Call) -> Found:
    dim = call["dim"] % call.source.ndim
    reach = call.reach
    if call.name == "aten::unbind":
        apart = [reach.taken(dim, np.array([[place]])) for place in range(call.source.shape[dim])]
        return [replace(one, ends=one.ends.squeeze(1 + dim)) for one in apart]
    lengths = [shape[dim] for shape in call.shapes]
    starts = np.cumsum([0, *lengths[:-1]])
    return [reach.taken(dim, start + np.arange(length)[:, None]) for start, length in zip(starts, lengths, strict=True)]


@rule("cat", "stack")
def _cat(call: Call) -> Reach:
    dim, stacked = call["dim"] % len(call.shapes[0]), call.name == "aten::stack"
    whole = call.shapes[0][dim]
    made: Reach | None = None
    start = 0
    for part in call["tensors"]:
        reach, length = call.reach_of(part), 1 if stacked else part.shape[dim]
        if reach and stacked:
            reach = _widened(reach, dim)
        if made is not None:
            made = made.put(reach, dim, np.arange(start, start + length), whole)
        elif reach:
            made = reach.taken(dim, windows(whole, length, kernel=1, before=start))
        start += length
    assert made is not None, "a rule is asked only where something depends on the image"
    return made


@rule("slice_scatter", "select_scatter")
def _scatter(call: Call) -> Reach | None:
    return written(call, call.reach_of(call.source), call.reach_of(call["src"]))


def written(call: Call, base: Reach | None, source: Reach | None) -> Reach | None:
    """What a tensor sees after its view, as `call` made it, was written to; CannotFollow where that is not followed."""
    name = call.name.removeprefix("aten::")
    if name in RESHAPES:
        return source and source.reshaped(call.shapes[0], call.source.shape)
    if name in TRANSPOSES:
        return source and _transpose(replace(call, reach_of=lambda _: source))
    if name == "permute":
        return source and source.permuted(np.argsort([dim % call.source.ndim for dim in call["dims"]]).tolist())
    if name not in ("slice", "select", "slice_scatter", "select_scatter"):
        raise CannotFollow("it is written to through a view of it")
    dim = call["dim"] % call.source.ndim
    if source is not None and "index" in call.arguments:
        source = _widened(source.aligned(call.source.ndim - 1), dim)
    source = source and source.aligned(call.source.ndim)
    positions, length = sliced(call), call.source.shape[dim]
    if base is not None:
        return base.put(source, dim, positions, length)
    table = np.full(length, -1)
    table[positions] = np.arange(len(positions))
    return source and source.taken(dim, table[:, None])


def _widened(reach: Reach, dim: int) -> Reach:
    return replace(reach, ends=np.expand_dims(reach.ends, 1 + dim))


@rule("flip")
def _flip(call: Call) -> Reach:
    reach = call.reach
    for dim in call["dims"]:
        reach = reach.taken(dim, np.arange(call.source.shape[dim])[::-1, None])
    return reach


@rule("roll")
def _roll(call: Call) -> Reach:
    if not call["dims"]:
        raise CannotFollow("it rolls without dims")
    reach = call.reach
    for dim, shift in zip(_listed(call["dims"]), _listed(call["shifts"]), strict=True):
        length = call.source.shape[dim]
        reach = reach.taken(dim, (np.arange(length)[:, None] - shift) % length)
    return reach


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
def _shuffle(call: Call) -> Reach:
    """Dimensions split, reordered and merged."""
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
    reach = call.reach.reshaped(call.source.shape, split).permuted(moved)
    return reach.reshaped([split[dim] for dim in moved], call.shapes[0])


@rule("glu")
def _glu(call: Call) -> Reach:
    half = call.shapes[0][call["dim"]]
    return call.reach.taken(call["dim"], np.arange(half)[:, None] + np.array([0, half]))


def _axes(call: Call) -> int:
    """2 of `max_pool2d`."""
    found = re.search(r"(\d)d", call.name)
    assert found
    return int(found[1])


def _listed(value: Any, count: int | None = None) -> list[int]:
    """A number or a list of one as a list of so many."""
    listed = list(value) if isinstance(value, list | tuple) else [value]
    return listed * count if count and len(listed) == 1 else listed
