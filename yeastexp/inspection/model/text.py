"""What was found out about a model: for people as text, for scripts as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from yeastexp.inspection.model.analysis import MOST, Effective, Inspection, Row
from yeastexp.nets.costs import Parameters
from yeastexp.nets.receptive_field import Axis, ReceptiveField
from yeastexp.system.formatting import format_bytes

HEADINGS = ("layer", "kind", "output C×H×W", "weights", "biases", "norm", "stride", "sees", "multiply-adds")
LABEL = 21
"""Letters before what is said below the table."""


def as_json(found: Inspection) -> dict[str, Any]:
    """All figures, for scripts; shapes without the batch."""
    part, subject = found.survey.convolutional_part, found.subject
    return {
        "model": subject.name,
        "input": list(subject.image),
        "output_shape": list(found.survey.output.shape[1:]),
        **_field(found.survey.output),
        "convolutional_part": part and {"layer": part.layer, "output_shape": list(part.shape[1:]), **_field(part)},
        "effective_receptive_field": found.effective and _effective(found.effective),
        "window": subject.window,
        "cell_diameter": {"median": subject.cell_diameter, "cells": len(subject.cell_diameters)},
        "parameters": {
            "with_bias": sum(one.total for one in found.parameters),
            "without_bias": found.weights,
            "norm_scales": sum(one.norm_scales for one in found.parameters),
            "norm_shifts": sum(one.norm_shifts for one in found.parameters),
            "by_layer": {one.layer: _held(one) for one in found.parameters},
        },
        "layers": [
            {
                "layer": row.layer,
                "kind": row.kind,
                "output_shape": list(row.shape),
                "multiply_adds": row.multiply_adds,
                **(_field(row.field) if row.field else {"jump": None, "receptive_field": None}),
            }
            for row in found.rows
        ],
        "multiply_adds": found.multiply_adds,
        "largest_activations": [
            {"layer": row.layer, "kind": row.kind, "output_shape": list(row.shape), "values": prod(row.shape)}
            for row in found.largest
        ],
        "memory": {"batch": subject.batch, **vars(found.memory), "total": found.memory.total},
        "advice": list(found.advice),
    }


def _held(one: Parameters) -> dict[str, Any]:
    return {key: value for key, value in vars(one).items() if key != "layer"}


def _field(field: ReceptiveField) -> dict[str, Any]:
    axes = {"height": field.height, "width": field.width}
    return {
        "jump": field.jump,
        "receptive_field": {
            name: {"whole image": axis.whole}
            if axis.whole
            else [{**vars(one), "size": one.size} for one in axis.phases]
            for name, axis in axes.items()
        },
        "uneven": field.height.uneven or field.width.uneven or None,
    }


def _effective(found: Effective) -> dict[str, Any]:
    """The sides of the squares about an output's own pixel that hold half and 95 % of the gradient."""
    return {
        "side_50": found.spread.side(0.5),
        "side_95": found.spread.side(MOST),
        "checkpoint": "best",
        "step": found.step,
        "images": found.images,
        "positions": found.spread.positions,
    }


def lines(found: Inspection) -> Iterator[str]:
    """All figures, for people."""
    yield f"{found.subject.name}, an image of {_shape(found.subject.image)} (C×H×W)"
    yield ""
    yield from _table(found)
    yield ""
    yield from _totals(found)
    yield ""
    if part := found.survey.convolutional_part:
        yield from _entry("convolutional part", f"{_shape(part.shape[1:])} (C×H×W) after {part.layer}")
        yield from _field_lines(part)
    yield from _entry("output", _shape(found.survey.output.shape[1:]))
    yield from _field_lines(found.survey.output)
    if found.effective:
        yield from _entry("effective field", *_effective_lines(found.effective))
    yield from _compared(found)
    for one in found.advice:
        yield from _entry("advice", one)


def _entry(label: str, *said: str) -> Iterator[str]:
    """A label, and lines beside it."""
    for index, line in enumerate(said):
        yield f"{label if index == 0 else '':<{LABEL}}{line}"


def _shape(lengths: Sequence[int]) -> str:
    return "×".join(map(str, lengths))


def _table(found: Inspection) -> Iterator[str]:
    rows = [HEADINGS, *map(_cells, found.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        left = (cell.ljust(width) for cell, width in zip(row[:4], widths, strict=False))
        right = (cell.rjust(width) for cell, width in zip(row[4:], widths[4:], strict=True))
        yield "  ".join((*left, *right)).rstrip()
    shown = {row.layer for row in found.rows if row.parameters}
    for one in found.parameters:
        if one.layer not in shown:
            yield f"{one.layer or 'the model itself'}: {one.total:,} parameters beside these layers"


def _cells(row: Row) -> tuple[str, ...]:
    held = row.parameters
    norm = held.norm_scales + held.norm_shifts if held else 0
    return (
        row.layer,
        row.kind,
        _shape(row.shape),
        f"{held.factors} = {held.weights:,}" if held and held.weights else "",
        f"{held.biases:,}" if held and held.biases else "",
        f"{norm:,}" if norm else "",
        _both([f"{axis.stride}" for axis in row.field.axes]) if row.field and len(row.shape) == 3 else "",
        _both([_sizes(axis) for axis in row.field.axes]) if row.field else "",
        f"{row.multiply_adds:,}" if row.multiply_adds else "",
    )


def _both(texts: Sequence[str]) -> str:
    """Height and width, once where they are the same."""
    return texts[0] if texts[0] == texts[1] else "×".join(texts)


def _sizes(axis: Axis) -> str:
    if axis.whole:
        return "whole image"
    smallest = min(phase.size for phase in axis.phases)
    return f"{axis.size}" if smallest == axis.size else f"{smallest}–{axis.size}"


def _totals(found: Inspection) -> Iterator[str]:
    every = found.parameters
    scales, shifts = sum(one.norm_scales for one in every), sum(one.norm_shifts for one in every)
    said = f", the {scales:,} scales of norms counted, their {shifts:,} shifts not" if scales or shifts else ""
    total = sum(one.total for one in every)
    yield from _entry("parameters", f"{total:,} with biases", f"{found.weights:,} without biases{said}")
    yield from _entry("multiply-adds", f"{found.multiply_adds:,} an image, of convolutions and matrix products")
    yield from _entry(
        "largest activations", "; ".join(f"{row.layer or row.kind} {_shape(row.shape)}" for row in found.largest)
    )
    memory = found.memory
    yield from _entry(
        "training step",
        f"{format_bytes(memory.total)} for a batch of {found.subject.batch} in float32, and what the backward pass "
        "works with",
        f"{format_bytes(memory.activations)} activations saved, {format_bytes(memory.parameters)} parameters, "
        f"{format_bytes(memory.gradients)} gradients, {format_bytes(memory.optimizer_state)} optimizer",
    )


def _field_lines(field: ReceptiveField) -> Iterator[str]:
    axes = {"receptive field": field.height}
    if field.height != field.width:
        axes = {"sees, height": field.height, "sees, width": field.width}
    for name, axis in axes.items():
        yield from _entry(name, *_axis_lines(axis))
    if not field.height.whole:
        yield from _entry("jump", f"{field.jump} pixels")


def _axis_lines(axis: Axis) -> Iterator[str]:
    if axis.whole:
        yield f"the whole image, through {axis.whole}"
        return
    counts = Counter(phase.size for phase in axis.phases).most_common()
    sizes = ", ".join(f"{size} pixels at {count} of {len(axis.phases)} phases" for size, count in counts)
    said = sizes if len(counts) > 1 else f"{axis.size} pixels"
    yield f"{said}; at most {axis.before} before an output's own and {axis.after} after it"
    if 1 < len(axis.phases) <= 64:
        each = [f"{one.phase}: {one.before}+1+{one.after}" for one in axis.phases]
        yield "by phase, before + own pixel + after:"
        yield from (", ".join(each[start : start + 8]) for start in range(0, len(each), 8))
    if axis.uneven:
        yield f"the worst case at this size: {axis.uneven} does not do the same everywhere"


def _effective_lines(found: Effective) -> Iterator[str]:
    half, most = found.spread.side(0.5), found.spread.side(MOST)
    yield f"{100 * MOST:.0f} % of the gradient within {most}×{most} pixels, half of it within {half}×{half}"
    yield (
        f"mean of {found.spread.positions} outputs in {found.images} validation images, best checkpoint, "
        f"step {found.step}"
    )


def _compared(found: Inspection) -> Iterator[str]:
    """What a field is to be compared with."""
    subject = found.subject
    if subject.window:
        yield from _entry("training window", f"{subject.window}×{subject.window} pixels")
    if subject.cell_diameter:
        cells = f"the median of {len(subject.cell_diameters)} to train on{subject.doubt}"
        yield from _entry("cells", f"{subject.cell_diameter:.0f} pixels across, {cells}")
