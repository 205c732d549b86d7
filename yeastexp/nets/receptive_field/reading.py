"""Receptive fields, read off a trace in the middle of an image that is large enough."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from torch import nn

from yeastexp.errors import UserError
from yeastexp.nets.receptive_field.extent import NO_PIXEL, Extent, Integers
from yeastexp.nets.receptive_field.measuring import Reach, measured_reach
from yeastexp.nets.receptive_field.tracing import LayerCall, Trace, trace

DEFAULT_SIZE = (256, 256)

MIN_SIDE, MAX_SIDE = 256, 1 << 16
"""Sides of the images tried, in pixels: the shorter side of the first, and the limit of the longer side."""

GROWTH_SIDE = 2048
"""Sides in pixels from which on a field that grows with the position can be told from one that is large."""

MIN_PERIODS = 16
"""The least number of cumulative strides that a side of the image has to hold."""


@dataclass(frozen=True)
class Phase:
    """The pixels before and after their own that output positions with index `phase` modulo the period depend on."""

    phase: int
    before: int
    after: int

    @property
    def size(self) -> int:
        """Pixels from the first to the last; the position's own is not among them if `before` or `after` is < 0."""
        return self.before + 1 + self.after


@dataclass(frozen=True)
class Axis:
    """A receptive field along one axis.

    An output position h has its own pixel at floor(h · stride). `phases` is empty if every position depends on the
    whole image because of the layer `global_layer`. `shift_variant_layer` names the layer that makes the field depend
    on the position or on the image's size: phases are then the worst case at the size traced, and no tiles are exact.
    """

    # Why phases: behind a 2×2 pooling and a 2× upsampling, outputs 2k and 2k + 1 depend on the same pixels, 2k and
    # 2k + 1, so of one of them its own pixel is the first, of the other the last. In a deeper net the fields of
    # neighbours differ in size as well, and the usual recursion over kernels and strides gives one of them at best.
    phases: tuple[Phase, ...]
    stride: Fraction
    margins: tuple[int, int] = (0, 0)
    """The most pixels before and after its own that any position depends on, positions at the borders included."""
    global_layer: str = ""
    shift_variant_layer: str = ""

    @property
    def before(self) -> int:
        """The most pixels before a position's own; ValueError if the field is global."""
        return max(phase.before for phase in self.phases)

    @property
    def after(self) -> int:
        """The most pixels after a position's own; ValueError if the field is global."""
        return max(phase.after for phase in self.phases)

    @property
    def size(self) -> int:
        """The largest size; ValueError if the field is global."""
        return max(phase.size for phase in self.phases)


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that the positions of one map (B, C, H, W) depend on.

    Shifting the image by `cumulative_stride` pixels along an axis shifts the map by a whole number of positions and
    changes nothing else, so tiles whose corners are multiples of it repeat what the whole image gives. It may be
    larger than the stride of the map: a U-Net's output has stride 1 and the cumulative stride of its coarsest level.
    """

    layer: str
    shape: tuple[int, ...]
    cumulative_stride: int
    height: Axis
    width: Axis
    off_grid_layer: str = ""
    """The layer that is not shift-equivariant in images whose size is no multiple of the cumulative stride."""
    measured: str = ""
    """The operator that has no rule, if the field was measured on pixels, which may miss some that are depended on."""

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The fields along height and width."""
        return self.height, self.width

    @property
    def tiles(self) -> bool:
        """Whether tiles of an image can give exactly what the whole image gives."""
        return not (self.measured or self.off_grid_layer) and not any(
            axis.global_layer or axis.shift_variant_layer for axis in self.axes
        )


@dataclass(frozen=True)
class Survey:
    """The layers of a model on an image of one size, with their receptive fields."""

    layers: tuple[tuple[LayerCall, ReceptiveField | None], ...]
    """Each layer's call at that size, with the field of its output if that is laid out like an image."""
    output: ReceptiveField
    convolutional_part: ReceptiveField | None
    """The field of the last map of a model that classifies whole images, (B, K); None for other models."""


def receptive_field(
    model: nn.Module, channels: int, size: tuple[int, int] = DEFAULT_SIZE, *, measure: bool = True
) -> ReceptiveField:
    """Return which pixels of an image (B, channels, H, W) a model's output depends on.

    `size` (H, W) only has to be one that the model takes. The field is exact, unless an operator has no rule: then it
    is measured or, without `measure`, the whole image. Raises UserError if it can be neither derived nor measured.
    """
    return survey(model, channels, size, measure=measure).output


def survey(model: nn.Module, channels: int, size: tuple[int, int] = DEFAULT_SIZE, *, measure: bool = True) -> Survey:
    """Return a model's layers on an image of `size` pixels, with the receptive fields that they have on a large one.

    Raises UserError as `receptive_field` does.
    """
    base = trace(model, channels, size)
    if base.failure:
        raise _with_fitting_size(base.failure, model, channels, size) if base.refused else base.failure
    assert base.output, "a run that did not fail has an output"
    _check_output(base.output, type(model).__name__)
    dense = len(base.output.shape) == 4
    reading = _Search(model, channels, base, dense).reading()
    # Shapes are those of the size asked for, fields those of the large image. The two runs may differ in their calls:
    # a replay ends early, and a branch may be taken at one of the sizes only.
    larger = reading.trace.calls
    fields = {key: reading.field(call) for key, call in zip(_keys(larger), larger, strict=True)}
    layers = tuple(
        (call, fields.get(key) or (None if call.unknown else _global_field(call)))
        for key, call in zip(_keys(base.calls), base.calls, strict=True)
    )
    if dense and base.output.unknown:
        return Survey(layers, _measured(model, channels, base, reading.cumulative_stride, measure), None)
    if dense:
        return Survey(layers, reading.final_field(reading.trace.output, base.output.shape), None)
    part = reading.final_field(reading.trace.last_map, base.last_map.shape) if base.last_map else None
    output = _global_field(base.output)
    assert output, "some layer made (B, K) of a map, and that one is global"
    return Survey(layers, output, part)


def _measured(model: nn.Module, channels: int, base: Trace, stride: int, measure: bool) -> ReceptiveField:
    """Return the field of an output behind an operator that no rule covers; raises UserError if the model fails."""
    assert base.output
    reaches: Sequence[Reach] = (None, None)
    if measure:
        try:
            reaches = measured_reach(model, channels, base.size, stride)
        except Exception as error:
            # Whatever a model's forward raises, it says why nothing can be measured.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{base.output.unknown}; nor can it be measured: {reason}") from None
    axes = []
    for extent, reach, pixels, length in zip(
        base.output.extents, reaches, base.size, base.output.shape[2:], strict=True
    ):
        assert extent
        phases = (Phase(0, *reach),) if reach else ()
        axes.append(Axis(phases, Fraction(pixels, length), reach or (0, 0), "" if reach else extent.global_layer))
    height, width = axes
    return ReceptiveField("output", base.output.shape, stride, height, width, measured=base.output.unknown)


def _with_fitting_size(failure: UserError, model: nn.Module, channels: int, size: tuple[int, int]) -> UserError:
    """Return a failure that also names the first larger size that the model takes, if there is one."""
    larger = [(size[0] * factor, size[1] * factor) for factor in (2, 4, 8, 16, 32) if factor * max(size) <= GROWTH_SIDE]
    for height, width in larger:
        if trace(model, channels, (height, width)).failure is None:
            return UserError(f"{failure}; it takes one of {height}×{width} pixels")
    return failure


def _check_output(output: LayerCall, model: str) -> None:
    """Raise UserError if an output is not (B, K, H, W) or (B, K), or does not depend on the image."""
    shape = "×".join(map(str, output.shape))
    if len(output.shape) not in (2, 4):
        raise UserError(f"model {model}: gives {shape} for an image; it should give B×K×H×W, or B×K for whole images")
    if None in output.extents:
        raise UserError(f"model {model}: its output does not depend on the image")
    height = output.extents[0]
    assert height
    # The extent along height has size 1 in the dimensions that rows of the image do not run along. If it varies along
    # the last dimension but not along the one before it, the model has transposed the image.
    if len(output.shape) == 4 and 1 == height.sizes[2] < height.sizes[3]:
        raise UserError(f"model {model}: the rows of its output are not the rows of the image; transpose them back")


def _global_field(call: LayerCall) -> ReceptiveField | None:
    """Return the field of a call whose positions all depend on the whole image along both axes; None for others."""
    height, width = call.extents
    if not height or not width or not (height.global_layer and width.global_layer):
        return None
    rows, columns = (Axis((), Fraction(1), global_layer=extent.global_layer) for extent in (height, width))
    return ReceptiveField(call.label, call.shape, 1, rows, columns)


def _keys(calls: Sequence[LayerCall]) -> Iterator[tuple[str, str, int]]:
    """Yield a key for each call, by which it is found again at another size: layer, kind, and index of the call."""
    counts: Counter[tuple[str, str]] = Counter()
    for call in calls:
        counts[call.name, call.kind] += 1
        yield call.name, call.kind, counts[call.name, call.kind]


@dataclass(frozen=True)
class _Search:
    """The search for a size at which the middle of the image is far from its borders."""

    # Near a border, fields are cut off by it, and padding by reflection folds them back. Only in the middle do they
    # repeat themselves with a period, and only an image several times as large as the field, which is not yet known,
    # has such a middle. So the size is doubled until every field asked for is periodic there, then raised until it
    # holds enough periods and is a multiple of each: at other sizes layers that round (pooling that drops a row,
    # interpolation to a size) may treat the far border differently. Tracing costs next to nothing, for on the meta
    # device no pixel is computed, and extents are kept for each row and column, not for each pixel.
    model: nn.Module
    channels: int
    base: Trace
    dense: bool

    def reading(self) -> _Reading:
        """Return the reading of an image that is large enough and a multiple of the cumulative stride.

        Raises UserError if there is none: the field grows with the position, or the model takes no large image.
        """
        # Multiples of the size asked for, because the model takes that one, and may refuse sides that it cannot halve
        # or cut into patches.
        factor = max(math.ceil(MIN_SIDE / min(self.base.size)), 1)
        reading = _Reading(self.base)
        while factor * max(self.base.size) <= MAX_SIDE and (larger := self.trace_at(factor)):
            reading = _Reading(larger)
            if min(larger.size) >= GROWTH_SIDE:
                reading.refuse_growing()
            if not self.is_clear(reading) or reading.is_presumed:
                factor *= 2
            elif min(larger.size) < MIN_PERIODS * (stride := reading.cumulative_stride):
                factor = math.ceil(MIN_PERIODS * stride / min(self.base.size))
            elif off := [length for length in larger.size if length % stride]:
                factor *= math.lcm(*(stride // math.gcd(stride, length) for length in off))
            else:
                # A layer that differs with the size spoils tiles of any size, so the grid is of no interest then.
                variant = self.size_variant_layer(reading, factor)
                off_grid = "" if variant or not self.dense else self.off_grid_layer(reading)
                return replace(reading, size_variant_layer=variant, off_grid_layer=off_grid)
        # No larger image can be had. The last reading will do if it shows every phase, though unchecked at other sizes.
        if self.is_clear(reading, reading.cumulative_stride):
            return reading
        reading.refuse_growing()
        size = "×".join(map(str, reading.trace.size))
        raise UserError(
            f"the receptive field cannot be read off an image of {size} pixels, and the model takes none that is "
            "larger; it is larger than that, or the model is not shift-equivariant"
        )

    def trace_at(self, factor: int) -> Trace | None:
        """Return a run on an image with sides `factor` times as long; None if no output comes of it.

        If the model refuses that size, its recorded operators are run on it, as far as they go.
        """
        size = (self.base.size[0] * factor, self.base.size[1] * factor)
        larger = self.base if factor == 1 else trace(self.model, self.channels, size)
        if larger.failure:
            larger = self.base.replay(size)
        # An output that a rule covered at the size asked for, but not here, has extents that take too much memory.
        if larger.output and larger.output.unknown and self.base.output and not self.base.output.unknown:
            return None
        return larger if (larger.output if self.dense else larger.last_map) or not self.dense else None

    def is_clear(self, reading: _Reading, cumulative_stride: int = 1) -> bool:
        """Whether the field of the output, or of a classifier's last map, can be read (see `_Reading.field`)."""
        call = reading.trace.output if self.dense else reading.trace.last_map
        # Behind an operator without a rule no size of image would tell more.
        if call and call.unknown:
            return True
        return self.base.last_map is None if call is None else reading.field(call, cumulative_stride) is not None

    def size_variant_layer(self, reading: _Reading, factor: int) -> str:
        """Return the first layer that treats images of other sizes differently, as interpolation to a fixed size does.

        It is looked for by comparison with an image twice as large; empty if there is none.
        """
        larger = self.trace_at(2 * factor) if self.dense else None
        if larger is None or larger.failure:
            return ""
        second = _Reading(larger)
        calls, others = (dict(zip(_keys(t.calls), t.calls, strict=True)) for t in (reading.trace, larger))
        for key, call in {**calls, **others}.items():
            # A call that only one of the two runs makes belongs to a branch on the image's size.
            if key not in calls or key not in others or not _same(reading.field(calls[key]), second.field(others[key])):
                return call.label
        # Equal fields are not enough: `x / x.shape[2]` depends on the same pixels at any size.
        for given, other_given in itertools.zip_longest(reading.trace.numbers, larger.numbers):
            if given != other_given:
                return str((given or other_given)[0])
        # A slice that ends beyond maps of both sizes, at the same place, ends amid larger ones.
        ends = {(label, end) for label, end, _ in larger.beyond - reading.trace.beyond}
        return min((label for label, end, _ in reading.trace.beyond if (label, end) in ends), default="")

    def off_grid_layer(self, reading: _Reading) -> str:
        """Return the first layer that depends on other pixels if the size is no multiple of the cumulative stride."""
        # Padding on both sides to a multiple moves the grid by an amount that depends on the image's size. One pixel
        # more than a multiple is such a size, unless the stride is 1, where there is no grid to be off.
        height, width = reading.trace.size
        off = trace(self.model, self.channels, (height + 1, width + 1))
        if off.failure or not off.output or not reading.trace.output or _same_start(reading.trace.output, off.output):
            return ""
        usual = dict(zip(_keys(reading.trace.calls), reading.trace.calls, strict=True))
        calls = zip(_keys(off.calls), off.calls, strict=True)
        labels = (call.label for key, call in calls if key not in usual or not _same_start(usual[key], call))
        return next(labels, off.output.label)


def _same_start(first: LayerCall, second: LayerCall) -> bool:
    """Whether two calls depend on the same pixels in the second quarter of the image."""
    # The images begin at the same pixel and end at different ones. The second quarter is far from the first border, and
    # from the other border in both of them.
    for dim, (one, other) in enumerate(zip(first.extents, second.extents, strict=True), 2):
        if not one or not other or one.global_layer or other.global_layer or len(first.shape) < 4:
            continue
        length = min(first.shape[dim], second.shape[dim])
        lines = [_Line.of(one, dim, first.shape[dim]), _Line.of(other, dim, second.shape[dim])]
        ends, other_ends = (np.stack([line.first, line.last])[:, length // 4 : length // 2] for line in lines)
        if (ends != other_ends).any() or (other.shift_variant_layer and not one.shift_variant_layer):
            return False
    return True


def _same(field: ReceptiveField | None, other: ReceptiveField | None) -> bool:
    """Whether two fields have the same phases, strides and global layers, as far as both could be read."""
    if field is None or other is None:
        return True
    # Strides of global fields are not compared: that of a map pooled to 7×7 is another one for each image.
    first, second = (
        [(axis.phases, axis.global_layer or axis.stride) for axis in either.axes] for either in (field, other)
    )
    return first == second


@dataclass(frozen=True)
class _Reading:
    """The receptive fields of one trace's calls."""

    trace: Trace
    size_variant_layer: str = ""
    off_grid_layer: str = ""

    @functools.cached_property
    def cumulative_stride(self) -> int:
        """The least number of pixels after which every tensor on the way repeats itself."""
        # Of all tensors, not of the output alone: a wide branch may hide from it the period of a narrow one.
        lines = (
            _Line.of(extent, dim, shape[dim])
            for extent, shape in self.trace.extents
            for dim, size in enumerate(extent.sizes)
            if size >= 4 and not extent.global_layer
        )
        return math.lcm(*(period[1] for line in lines if (period := line.period)), *self.global_strides())

    def global_strides(self) -> Iterator[int]:
        """Yield the strides of maps that depend on the whole image, from their sizes: such extents have no period."""
        for call in self.trace.calls:
            for extent, pixels, length in zip(call.extents, self.trace.size, call.shape[2:], strict=False):
                is_map = len(call.shape) == 4 and length >= 4
                stride = Fraction(pixels, length).numerator
                # The 129 frequencies of a Fourier transform of 256 pixels are no grid of positions: their ratio is
                # 256/129, a stride of nearly the whole image.
                is_grid = is_map and stride * MIN_PERIODS <= pixels
                if is_grid and extent and extent.global_layer and not extent.shift_variant_layer:
                    yield stride

    @property
    def is_presumed(self) -> bool:
        """Whether only a larger image can tell which layer is global, because fields already covered this one."""
        call = self.trace.output or self.trace.last_map
        return any(extent.presumed for extent in call.extents if extent) if call else False

    def field(self, call: LayerCall, cumulative_stride: int = 1) -> ReceptiveField | None:
        """Return the field of a call, with phases for a common multiple of its own period and the cumulative stride.

        Returns None if this image does not show it.
        """
        height, width = (self.axis(call, axis, cumulative_stride) for axis in range(2))
        if height is None or width is None:
            return None
        periods = [math.ceil(len(axis.phases) * axis.stride) for axis in (height, width)]
        stride = math.lcm(cumulative_stride, *filter(None, periods))
        return ReceptiveField(call.label, call.shape, stride, height, width)

    def final_field(self, call: LayerCall | None, shape: tuple[int, ...]) -> ReceptiveField:
        """Return the field of the output or the last map, with all phases, and with its shape at the size asked for."""
        field = call and self.field(call, self.cumulative_stride)
        assert call and field, "the search ends with a size at which it can be read"
        height, width = (self.blamed(axis, call.label) for axis in field.axes)
        return replace(field, shape=shape, height=height, width=width, off_grid_layer=self.off_grid_layer)

    def blamed(self, axis: Axis, label: str) -> Axis:
        """Return an axis that blames the first shift-variant layer, where `label`, the last one, only shows it."""
        if axis.shift_variant_layer != label:
            return axis
        fields = filter(None, map(self.field, self.trace.calls))
        layers = (line.shift_variant_layer for field in fields for line in field.axes if line.shift_variant_layer)
        return replace(axis, shift_variant_layer=next(layers, label))

    def refuse_growing(self) -> None:
        """Raise UserError if the field of some call grows along an axis; the message names the first such layer."""
        for call in self.trace.calls:
            for axis, (extent, pixels) in enumerate(zip(call.extents, self.trace.size, strict=True)):
                if not extent or extent.global_layer or len(call.shape) != 4:
                    continue
                # The phases of one map differ little in size; sizes that differ by a quarter of the image follow the
                # position.
                if _Line.of(extent, 2 + axis, call.shape[2 + axis]).size_range(pixels) > pixels / 4:
                    raise UserError(
                        f"layer {call.label}: depends on more pixels the farther a position is from the corner, for it "
                        "joins maps of different strides; there is no receptive field"
                    )

    def axis(self, call: LayerCall, axis: int, cumulative_stride: int) -> Axis | None:
        """Return the field of a call along one axis, with a multiple of the cumulative stride as its period.

        Returns None if the call is no map, does not depend on the image, or this image does not show its field.
        """
        extent, pixels = call.extents[axis], self.trace.size[axis]
        if extent is None or extent.unknown or (not extent.global_layer and len(call.shape) != 4):
            return None
        if len(call.shape) != 4:
            return Axis((), Fraction(1), global_layer=extent.global_layer)
        length = call.shape[2 + axis]
        if extent.global_layer:
            return Axis((), Fraction(pixels, length), global_layer=extent.global_layer)
        line = _Line.of(extent, 2 + axis, length)
        variant = extent.shift_variant_layer or self.size_variant_layer
        if line.period and not line.reads_padding:
            # So many positions on, everything lies so many pixels on: that is the stride, and the phases begin anew.
            positions, stride = line.period[0], Fraction(line.period[1], line.period[0])
            period = math.lcm(positions, int(math.lcm(cumulative_stride, line.period[1]) / stride))
        elif variant:
            # Without a period all positions form one phase, whose worst case is reported.
            stride, period = Fraction(pixels, length), 1
        else:
            return None
        if len(line.middle) < period:
            return None
        margins = line.margins(stride)
        # Beside one border it depends on pixels at the other one, as with circular padding or `torch.roll`: the middle
        # is periodic, but a tile has other pixels at its border.
        if max(margins) >= pixels // 2:
            variant = variant or call.label
        return Axis(line.phases(period, stride), stride, margins, shift_variant_layer=variant)


@dataclass(frozen=True)
class _Line:
    """The first and the last pixel that each position of a map depends on along one axis."""

    first: Integers
    last: Integers
    padded: Integers
    """-1 where padding was read on the way, otherwise 0."""

    @staticmethod
    def of(extent: Extent, dim: int, length: int) -> _Line:
        """Return the pixels of an extent along the dimension `dim` of size `length`, united over the others."""
        others = tuple(axis for axis in range(1, extent.table.ndim) if axis != 1 + dim)
        first, last, padded = np.broadcast_to(extent.table.min(axis=others), (3, length))
        return _Line(first, -last, padded)

    @property
    def middle(self) -> range:
        """The half of the positions that is farthest from the borders."""
        return range(len(self.first) // 4, len(self.first) - len(self.first) // 4)

    @property
    def reads_padding(self) -> bool:
        """Whether the image is too small to tell what the middle depends on, because it has read padding."""
        return bool(self.padded[self.middle.start : self.middle.stop].any())

    @functools.cached_property
    def period(self) -> tuple[int, int] | None:
        """The numbers of positions and of pixels after which the middle repeats itself; None if it does not."""
        middle = slice(self.middle.start, self.middle.stop)
        first, last = self.first[middle], self.last[middle]
        # Behind a transposed convolution whose kernel is smaller than its stride some positions depend on no pixel.
        depends = first < NO_PIXEL
        if not depends.any():
            return None
        start = int(depends.argmax())
        # Candidates are the positions at which both ends have moved equally far, twice within the middle; the smallest
        # that holds everywhere is the period. To compare all positions for each would take quadratic time, so 16
        # sampled positions first rule out most of the candidates at once.
        moved, moved_last = first[start:] - first[start], last[start:] - last[start]
        candidates = np.flatnonzero((moved > 0) & (moved == moved_last))
        candidates = candidates[2 * candidates <= len(first)]
        for sample in np.linspace(0, (len(first) - 1) // 2, 16, dtype=int):
            later = sample + candidates
            moved_alike = first[later] - first[sample] == moved[candidates]
            candidates = candidates[moved_alike | ~(depends[later] & depends[sample])]
        for positions in candidates.tolist():
            both = depends[positions:]
            if (both != depends[:-positions]).any():
                continue
            pixels = int(moved[positions])
            if all(((end[positions:] - end[:-positions])[both] == pixels).all() for end in (first, last)):
                return positions, pixels
        return None

    def size_range(self, pixels: int) -> int:
        """Largest minus smallest size of all positions whose field does not touch the borders of the image."""
        inner = (self.first > 0) & (self.last < pixels - 1) & (self.first < NO_PIXEL) & (self.padded == 0)
        sizes = (self.last - self.first)[inner]
        return int(np.ptp(sizes)) if sizes.size else 0

    def phases(self, period: int, stride: Fraction) -> tuple[Phase, ...]:
        """Return, for each phase, the most pixels before and after that its positions in the middle depend on."""
        before, after = self.sides(stride)
        # A phase is the index of the output position modulo the period, so counting starts at the map's first
        # position, not at that of the middle.
        places = np.array(self.middle)
        by_phase = [places[(phase - places[0]) % period :: period] for phase in range(period)]
        return tuple(Phase(phase, int(before[at].max()), int(after[at].max())) for phase, at in enumerate(by_phase))

    def margins(self, stride: Fraction) -> tuple[int, int]:
        """Return the most pixels before and after its own that any position depends on."""
        before, after = self.sides(stride)
        return int(before.max()), int(after.max())

    def sides(self, stride: Fraction) -> tuple[Integers, Integers]:
        """Return the pixels before and after each position's own; 0 and -1, a size of 0, if it depends on none."""
        own = np.arange(len(self.first)) * stride.numerator // stride.denominator
        depends = self.first < NO_PIXEL
        return np.where(depends, own - self.first, 0), np.where(depends, self.last - own, -1)
