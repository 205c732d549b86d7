"""Receptive fields, read off a trace in the middle of an image that is large enough."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from torch import nn

from yeastexp.errors import UserError
from yeastexp.nets.receptive_field.reach import NOTHING, Integers, Reach
from yeastexp.nets.receptive_field.tracing import Step, Trace, trace

DEFAULT_SIZE = (256, 256)
LARGEST = 1 << 16
"""Pixels of a side."""
WIDE = 2048
"""Pixels of a side from which on a field that grows with the position is told from one that is large."""

SMALLEST = 256
"""Pixels of a side to begin with."""
PERIODS = 16
"""Times that a map has to repeat itself along a side."""


@dataclass(frozen=True)
class Phase:
    """What output positions see that lie `phase` beyond a multiple of the period: pixels before and after their own."""

    phase: int
    before: int
    after: int

    @property
    def size(self) -> int:
        """Pixels from the first to the last, its own among them (or beside them, where `before` or `after` is < 0)."""
        return self.before + 1 + self.after


@dataclass(frozen=True)
class Axis:
    """A receptive field along one axis.

    An output position h has its own pixel at floor(h · stride). `phases` is empty where every position sees the whole
    image, for the sake of the layer `whole`. `uneven` names the layer that makes the field depend on the position or
    the image's size: phases are then the worst case at the size that was looked at, and no tiles are exact.
    """

    phases: tuple[Phase, ...]
    stride: Fraction
    margins: tuple[int, int] = (0, 0)
    """Pixels before and after that any position sees, those beside the image's border included."""
    whole: str = ""
    uneven: str = ""

    @property
    def before(self) -> int:
        """The most pixels before a position's own; ValueError where it sees the whole image."""
        return max(phase.before for phase in self.phases)

    @property
    def after(self) -> int:
        """The most pixels after a position's own; ValueError where it sees the whole image."""
        return max(phase.after for phase in self.phases)

    @property
    def size(self) -> int:
        """The largest size; ValueError where a position sees the whole image."""
        return max(phase.size for phase in self.phases)


@dataclass(frozen=True)
class ReceptiveField:
    """What the positions of one map (B, C, H, W) see of the image.

    Shifting the image by `jump` pixels along an axis shifts the map by a whole number of positions and changes nothing
    else, so tiles whose corners are multiples of it repeat what the whole image gives.
    """

    layer: str
    shape: tuple[int, ...]
    jump: int
    height: Axis
    width: Axis

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Height, then width."""
        return self.height, self.width

    @property
    def tiles(self) -> bool:
        """Whether pieces of an image can give exactly what the whole image gives."""
        return not any(axis.whole or axis.uneven for axis in self.axes)


@dataclass(frozen=True)
class Survey:
    """A model on an image of one size: its layers, and the receptive fields."""

    layers: tuple[tuple[Step, ReceptiveField | None], ...]
    """Each layer's call at that size, and what it sees, where that lies like an image."""
    output: ReceptiveField
    convolutional_part: ReceptiveField | None
    """Of a model that answers for whole images, (B, K): what its last map sees."""


def receptive_field(model: nn.Module, channels: int, size: tuple[int, int] = DEFAULT_SIZE) -> ReceptiveField:
    """What a model's output sees of an image (B, channels, H, W), exactly; UserError where that cannot be told.

    `size` only has to be one that the model takes.
    """
    return survey(model, channels, size).output


def survey(model: nn.Module, channels: int, size: tuple[int, int] = DEFAULT_SIZE) -> Survey:
    """A model's layers on an image of `size` pixels, and what each sees of one that is large enough."""
    base = trace(model, channels, size)
    if base.failure:
        raise _with_a_size_that_fits(base.failure, model, channels, size)
    assert base.output, "a run that did not fail has one"
    _refuse(base.output, type(model).__name__)
    dense = len(base.output.shape) == 4
    reading = _Search(model, channels, base, dense).reading()
    larger = reading.trace.steps
    fields = {key: reading.field(step) for key, step in zip(_keys(larger), larger, strict=True)}
    layers = tuple(
        (step, fields.get(key) or _whole_image(step)) for key, step in zip(_keys(base.steps), base.steps, strict=True)
    )
    if dense:
        return Survey(layers, _required(reading, reading.trace.output, base.output.shape), None)
    part = _required(reading, reading.trace.last_map, base.last_map.shape) if base.last_map else None
    output = _whole_image(base.output)
    assert output, "what is no map has lost its place in some layer"
    return Survey(layers, output, part)


def _with_a_size_that_fits(failure: UserError, model: nn.Module, channels: int, size: tuple[int, int]) -> UserError:
    """What went wrong; with the first larger size that the model takes, where the image was too small for it."""
    larger = [(size[0] * factor, size[1] * factor) for factor in (2, 4, 8, 16, 32) if factor * max(size) <= WIDE]
    for one in larger:
        if trace(model, channels, one).failure is None:
            return UserError(f"{failure}; it takes one of {one[0]}×{one[1]} pixels")
    return failure


def _refuse(output: Step, model: str) -> None:
    shape = "×".join(map(str, output.shape))
    if len(output.shape) not in (2, 4):
        raise UserError(f"model {model}: gives {shape} for an image; it should give B×K×H×W, or B×K for whole images")
    if None in output.reaches:
        raise UserError(f"model {model}: its output does not depend on the image")
    height = output.reaches[0]
    assert height
    if len(output.shape) == 4 and 1 == height.sizes[2] < height.sizes[3]:
        raise UserError(f"model {model}: the rows of its output are not the rows of the image; transpose them back")


def _required(reading: _Reading, step: Step | None, shape: tuple[int, ...]) -> ReceptiveField:
    found = step and reading.field(step, reading.jump)
    assert step and found, "the search ends with a size at which it can be read"
    axes = [reading.blamed(axis, step.label) for axis in found.axes]
    return replace(found, shape=shape, height=axes[0], width=axes[1])


def _whole_image(step: Step) -> ReceptiveField | None:
    """Of a step after one that saw the whole image."""
    height, width = step.reaches
    if not height or not width or not (height.whole and width.whole):
        return None
    axes = (Axis((), Fraction(1), whole=reach.whole) for reach in (height, width))
    return ReceptiveField(step.label, step.shape, 1, *axes)


def _keys(steps: Sequence[Step]) -> Iterator[tuple[str, str, int]]:
    """Names for the steps that are the same at another size: layer, kind, and the how manieth call."""
    counts: Counter[tuple[str, str]] = Counter()
    for step in steps:
        counts[step.name, step.kind] += 1
        yield step.name, step.kind, counts[step.name, step.kind]


@dataclass(frozen=True)
class _Search:
    """The search for a size at which the middle of the image is far from its borders."""

    model: nn.Module
    channels: int
    base: Trace
    dense: bool

    def reading(self) -> _Reading:
        """That of a size which is large enough and a multiple of the jump."""
        factor = max(math.ceil(SMALLEST / min(self.base.size)), 1)
        reading = _Reading(self.base)
        while factor * max(self.base.size) <= LARGEST and (larger := self.at(factor)):
            reading = _Reading(larger)
            if min(larger.size) >= WIDE:
                reading.refuse_growing()
            if not self.target(reading):
                factor *= 2
            elif min(larger.size) < PERIODS * reading.jump:
                factor = math.ceil(PERIODS * reading.jump / min(self.base.size))
            elif off := [length for length in larger.size if length % reading.jump]:
                factor *= math.lcm(*(reading.jump // math.gcd(reading.jump, length) for length in off))
            else:
                return replace(reading, uneven=self.unsteady(reading, factor))
        if self.target(reading):
            return reading
        reading.refuse_growing()
        size = "×".join(map(str, reading.trace.size))
        raise UserError(
            f"the receptive field cannot be read off an image of {size} pixels, and the model takes none that is "
            "larger; it sees more than that, or not the same everywhere"
        )

    def at(self, factor: int) -> Trace | None:
        """A run on so many times the size; where the model refuses that, its operators on it, as far as they go."""
        size = (self.base.size[0] * factor, self.base.size[1] * factor)
        larger = self.base if factor == 1 else trace(self.model, self.channels, size)
        if larger.failure:
            larger = self.base.replay(size)
        return larger if (larger.output if self.dense else larger.last_map) or not self.dense else None

    def target(self, reading: _Reading) -> bool:
        """Whether what is asked for can be read."""
        step = reading.trace.output if self.dense else reading.trace.last_map
        return self.base.last_map is None if step is None else reading.field(step) is not None

    def unsteady(self, reading: _Reading, factor: int) -> str:
        """The first layer that sees something else at twice the size."""
        larger = self.at(2 * factor) if self.dense else None
        if larger is None or larger.failure:
            return ""
        second = _Reading(larger)
        others = dict(zip(_keys(larger.steps), larger.steps, strict=True))
        for key, step in zip(_keys(reading.trace.steps), reading.trace.steps, strict=True):
            other = others.get(key)
            if other and not _same(reading.field(step), second.field(other)):
                return step.label
        return ""


def _same(one: ReceptiveField | None, other: ReceptiveField | None) -> bool:
    if one is None or other is None:
        return True
    first, second = ([(axis.phases, axis.whole or axis.stride) for axis in field.axes] for field in (one, other))
    return first == second


@dataclass(frozen=True)
class _Reading:
    """The receptive fields of one trace's steps."""

    trace: Trace
    uneven: str = ""
    """The layer that sees something else at another size."""

    @functools.cached_property
    def jump(self) -> int:
        """The pixels after which every operator on the way does the same again."""
        rows = (
            _Rows.of(reach, dim, shape[dim])
            for reach, shape in self.trace.reaches
            for dim, size in enumerate(reach.sizes)
            if size >= 4 and not reach.whole
        )
        return math.lcm(*(period[1] for one in rows if (period := one.period)), *self.strides())

    def strides(self) -> Iterator[int]:
        """Those of maps that see the whole image, of which only their sizes tell."""
        for step in self.trace.steps:
            for reach, pixels, length in zip(step.reaches, self.trace.size, step.shape[2:], strict=False):
                if reach and reach.whole and not reach.uneven and len(step.shape) == 4 and length >= 4:
                    yield Fraction(pixels, length).numerator

    def field(self, step: Step, jump: int = 1) -> ReceptiveField | None:
        """What a step's positions see, phases modulo the jump where that is more than their own; nothing if unclear."""
        axes = [self.axis(step, axis, jump) for axis in range(2)]
        if axes[0] is None or axes[1] is None:
            return None
        periods = [math.ceil(len(axis.phases) * axis.stride) for axis in axes if axis]
        return ReceptiveField(step.label, step.shape, math.lcm(jump, *filter(None, periods)), axes[0], axes[1])

    def blamed(self, axis: Axis, label: str) -> Axis:
        """With the first uneven step in the place of one that only shows it."""
        if axis.uneven != label:
            return axis
        fields = filter(None, map(self.field, self.trace.steps))
        return replace(axis, uneven=next((one.uneven for field in fields for one in field.axes if one.uneven), label))

    def refuse_growing(self) -> None:
        """UserError with the first step whose field grows along an axis."""
        for step in self.trace.steps:
            for axis, (reach, pixels) in enumerate(zip(step.reaches, self.trace.size, strict=True)):
                if not reach or reach.whole or len(step.shape) != 4:
                    continue
                if _Rows.of(reach, 2 + axis, step.shape[2 + axis]).spread(pixels) > pixels / 4:
                    raise UserError(
                        f"layer {step.label}: sees more the farther a position is from the corner, for it joins maps "
                        "of different strides; there is no receptive field"
                    )

    def axis(self, step: Step, axis: int, jump: int) -> Axis | None:
        reach, pixels = step.reaches[axis], self.trace.size[axis]
        if reach is None or (not reach.whole and len(step.shape) != 4):
            return None
        if len(step.shape) != 4:
            return Axis((), Fraction(1), whole=reach.whole)
        length = step.shape[2 + axis]
        rows = _Rows.of(reach, 2 + axis, length)
        uneven = reach.uneven or self.uneven
        if reach.whole:
            return Axis((), Fraction(pixels, length), whole=reach.whole)
        if rows.period:
            positions, stride = rows.period[0], Fraction(rows.period[1], rows.period[0])
            period = math.lcm(positions, int(math.lcm(jump, rows.period[1]) / stride))
        elif uneven:
            stride, period = Fraction(pixels, length), 1
        else:
            return None
        if len(rows.middle) < period:
            return None
        margins = rows.margins(stride)
        if max(margins) >= pixels // 2:
            uneven = uneven or step.label  # beside one border it sees what lies at the other
        return Axis(rows.phases(period, stride), stride, margins, uneven=uneven)


@dataclass(frozen=True)
class _Rows:
    """The first and the last pixel that each position of a map sees along one axis."""

    first: Integers
    last: Integers

    @staticmethod
    def of(reach: Reach, dim: int, length: int) -> _Rows:
        """Those along one dimension, whatever the position along the others."""
        others = tuple(axis for axis in range(1, reach.ends.ndim) if axis != 1 + dim)
        ends = np.broadcast_to(reach.ends.min(axis=others), (2, length))
        return _Rows(ends[0], -ends[1])

    @property
    def middle(self) -> range:
        """The half of the positions that is farthest from the borders."""
        return range(len(self.first) // 4, len(self.first) - len(self.first) // 4)

    @functools.cached_property
    def period(self) -> tuple[int, int] | None:
        """The positions, and the pixels, after which the middle repeats itself; nothing if it does not."""
        middle = slice(self.middle.start, self.middle.stop)
        first, last = self.first[middle], self.last[middle]
        seen = first < NOTHING
        if not seen.any():
            return None
        one = int(seen.argmax())
        moved, moved_last = first[one:] - first[one], last[one:] - last[one]
        for positions in np.flatnonzero((moved > 0) & (moved == moved_last)).tolist():
            both = seen[positions:]
            if 2 * positions > len(first) or (both != seen[:-positions]).any():
                continue
            pixels = int(moved[positions])
            if all(((end[positions:] - end[:-positions])[both] == pixels).all() for end in (first, last)):
                return positions, pixels
        return None

    def spread(self, pixels: int) -> int:
        """By how much the sizes differ of what positions see, the borders of an image of so many pixels left out."""
        inner = (self.first > 0) & (self.last < pixels - 1) & (self.first < NOTHING)
        sizes = (self.last - self.first)[inner]
        return int(np.ptp(sizes)) if sizes.size else 0

    def phases(self, period: int, stride: Fraction) -> tuple[Phase, ...]:
        """The worst case of each phase in the middle."""
        before, after = self.sides(stride)
        places = np.array(self.middle)
        chosen = [places[(phase - places[0]) % period :: period] for phase in range(period)]
        return tuple(Phase(phase, int(before[one].max()), int(after[one].max())) for phase, one in enumerate(chosen))

    def margins(self, stride: Fraction) -> tuple[int, int]:
        """The worst case of all positions."""
        before, after = self.sides(stride)
        return int(before.max()), int(after.max())

    def sides(self, stride: Fraction) -> tuple[Integers, Integers]:
        """Pixels before and after each position's own; 0 and -1 where it sees none."""
        own = np.arange(len(self.first)) * stride.numerator // stride.denominator
        seen = self.first < NOTHING
        return np.where(seen, own - self.first, 0), np.where(seen, self.last - own, -1)
