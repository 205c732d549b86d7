"""An inspection as text for people, and as JSON for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from yeastexp.inspection.model.analysis import EFFECTIVE_SHARE, EffectiveField, Inspection, LayerRow
from yeastexp.nets.costs import Parameters
from yeastexp.nets.receptive_field import Axis, ReceptiveField
from yeastexp.system.formatting import format_bytes, format_count

HEADINGS = ("layer", "kind", "output C×H×W", "weights", "biases", "norm", "stride", "field", "MACs")
LABEL = 21
"""The width of the labels of the entries below the table."""


def as_json(inspection: Inspection) -> dict[str, Any]:
    """The inspection as plain values for scripts; shapes are without the batch."""
    part, subject = inspection.survey.convolutional_part, inspection.subject
    return {
        "model": subject.name,
        "input": list(subject.image),
        "output_shape": list(inspection.survey.output.shape[1:]),
        **_field(inspection.survey.output),
        "convolutional_part": part and {"layer": part.layer, "output_shape": list(part.shape[1:]), **_field(part)},
        "effective_receptive_field": inspection.effective and _effective(inspection.effective),
        "patch_size": subject.patch_size,
        "cell_diameter": {"median": subject.cell_diameter, "cells": len(subject.cell_diameters)},
        "parameters": {
            "with_bias": sum(held.total for held in inspection.parameters),
            "without_bias": inspection.weights,
            "affine_weights": sum(held.affine_weights for held in inspection.parameters),
            "affine_biases": sum(held.affine_biases for held in inspection.parameters),
            "by_layer": {held.layer: _held(held) for held in inspection.parameters},
        },
        "layers": [
            {
                "layer": row.layer,
                "kind": row.kind,
                "kernel": list(row.kernel) or None,
                "output_shape": list(row.shape),
                "macs": row.macs,
                **(_field(row.field) if row.field else {"cumulative_stride": None, "receptive_field": None}),
            }
            for row in inspection.rows
        ],
        "macs": inspection.macs,
        "largest_activations": [
            {"layer": row.layer, "kind": row.kind, "output_shape": list(row.shape), "values": prod(row.shape)}
            for row in inspection.largest
        ],
        "memory": {"batch": subject.batch, **vars(inspection.memory), "total": inspection.memory.total},
        "advice": list(inspection.advice),
    }


def _held(held: Parameters) -> dict[str, Any]:
    return {key: value for key, value in vars(held).items() if key != "layer"}


def _field(field: ReceptiveField) -> dict[str, Any]:
    axes = {"height": field.height, "width": field.width}
    return {
        "cumulative_stride": field.cumulative_stride,
        "receptive_field": {
            name: {"global": axis.global_layer}
            if axis.global_layer
            else [{**vars(phase), "size": phase.size} for phase in axis.phases]
            for name, axis in axes.items()
        },
        "measured": field.measured or None,
        "shift_variant": field.height.shift_variant_layer or field.width.shift_variant_layer or None,
        "off_grid": field.off_grid_layer or None,
    }


def _effective(effective: EffectiveField) -> dict[str, Any]:
    """The sides of the squares about an output's own pixel that hold half and 95 % of the gradient."""
    return {
        "side_50": effective.gradient.side(0.5),
        "side_95": effective.gradient.side(EFFECTIVE_SHARE),
        "checkpoint": "best",
        "step": effective.step,
        "images": effective.images,
        "positions": effective.gradient.positions,
    }


def lines(inspection: Inspection) -> Iterator[str]:
    """The inspection as lines of text."""
    yield f"{inspection.subject.name}, an image of {_shape(inspection.subject.image)} (C×H×W)"
    yield ""
    yield from _table(inspection)
    yield ""
    yield from _totals(inspection)
    yield ""
    if part := inspection.survey.convolutional_part:
        yield from _entry("convolutional part", f"{_shape(part.shape[1:])} (C×H×W) after {part.layer}")
        yield from _field_lines(part)
    yield from _entry("output", _shape(inspection.survey.output.shape[1:]))
    yield from _field_lines(inspection.survey.output)
    if inspection.effective:
        yield from _entry("effective field", *_effective_lines(inspection.effective))
    yield from _compared(inspection)
    for advice in inspection.advice:
        yield from _entry("advice", advice)


def _entry(label: str, *texts: str) -> Iterator[str]:
    """Lines of text with a label beside the first."""
    for index, text in enumerate(texts):
        yield f"{label if index == 0 else '':<{LABEL}}{text}"


def _shape(lengths: Sequence[int]) -> str:
    return "×".join(map(str, lengths))


def _table(inspection: Inspection) -> Iterator[str]:
    rows = [HEADINGS, *map(_cells, inspection.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        left = (cell.ljust(width) for cell, width in zip(row[:4], widths, strict=False))
        right = (cell.rjust(width) for cell, width in zip(row[4:], widths[4:], strict=True))
        yield "  ".join((*left, *right)).rstrip()
    shown = {row.layer for row in inspection.rows if row.parameters}
    for held in inspection.parameters:
        if held.layer not in shown:
            yield f"{held.layer or 'the model itself'}: {held.total:,} parameters beside these layers"


def _cells(row: LayerRow) -> tuple[str, ...]:
    held = row.parameters
    norm = held.affine_weights + held.affine_biases if held else 0
    return (
        row.layer,
        f"{row.kind} {_shape(row.kernel)}".rstrip(),
        _shape(row.shape),
        f"{held.factors} = {held.weights:,}" if held and held.weights else "",
        f"{held.biases:,}" if held and held.biases else "",
        f"{norm:,}" if norm else "",
        _both([f"{axis.stride}" for axis in row.field.axes]) if row.field and len(row.shape) == 3 else "",
        _both([_sizes(axis) for axis in row.field.axes]) if row.field else "",
        f"{row.macs:,}" if row.macs else "",
    )


def _both(texts: Sequence[str]) -> str:
    """Height and width, once if they are equal."""
    return texts[0] if texts[0] == texts[1] else "×".join(texts)


def _sizes(axis: Axis) -> str:
    if axis.global_layer:
        return "whole image"
    smallest = min(phase.size for phase in axis.phases)
    return f"{axis.size}" if smallest == axis.size else f"{smallest}–{axis.size}"


def _totals(inspection: Inspection) -> Iterator[str]:
    held, memory = inspection.parameters, inspection.memory
    weights, biases = sum(layer.affine_weights for layer in held), sum(layer.affine_biases for layer in held)
    norms = f", with the {weights:,} affine weights of norms, without their {biases:,} biases" if weights else ""
    total = sum(layer.total for layer in held)
    largest = "; ".join(f"{row.layer or row.kind} {_shape(row.shape)}" for row in inspection.largest)
    yield from _entry("parameters", f"{total:,} with biases", f"{inspection.weights:,} without biases{norms}")
    yield from _entry("MACs", f"{inspection.macs:,} per image, of convolutions and matrix products")
    yield from _entry("largest activations", largest)
    yield from _entry(
        "training step",
        f"{format_bytes(memory.total)} for a batch of {inspection.subject.batch} in float32, without temporaries of "
        "the backward pass",
        f"{format_bytes(memory.activations)} activations saved, {format_bytes(memory.parameters)} parameters, "
        f"{format_bytes(memory.gradients)} gradients, {format_bytes(memory.optimizer_state)} optimizer",
    )


def _field_lines(field: ReceptiveField) -> Iterator[str]:
    axes = {"receptive field": field.height}
    if field.height != field.width:
        axes = {"field, height": field.height, "field, width": field.width}
    for name, axis in axes.items():
        yield from _entry(name, *_axis_lines(axis))
    if field.off_grid_layer:
        off = f"not shift-equivariant in images whose size is no multiple of {field.cumulative_stride} pixels"
        yield from _entry("", f"{off}: {field.off_grid_layer}")
    if field.measured:
        yield from _entry("", "measured on pixels, at least that much; tiles are blended:", field.measured)
    if not field.height.global_layer:
        yield from _entry("cumulative stride", f"{field.cumulative_stride} pixels")


def _axis_lines(axis: Axis) -> Iterator[str]:
    """The receptive field along one axis, which may differ between the phases of the cumulative stride."""
    if axis.global_layer:
        yield f"the whole image, through {axis.global_layer}"
        return
    counts = Counter(phase.size for phase in axis.phases).most_common()
    sizes = ", ".join(f"{size} pixels at {count} of {len(axis.phases)} phases" for size, count in counts)
    size = sizes if len(counts) > 1 else f"{axis.size} pixels"
    yield f"{size}; at most {axis.before} before an output's own and {axis.after} after it"
    if 1 < len(axis.phases) <= 64:
        phases = [f"{phase.phase}: {phase.before}+1+{phase.after}" for phase in axis.phases]
        yield "by phase, before + own pixel + after:"
        yield from (", ".join(phases[start : start + 8]) for start in range(0, len(phases), 8))
    if axis.shift_variant_layer:
        yield f"the worst case at this size: {axis.shift_variant_layer} is not shift-equivariant"


def _effective_lines(effective: EffectiveField) -> Iterator[str]:
    half, most = effective.gradient.side(0.5), effective.gradient.side(EFFECTIVE_SHARE)
    yield f"{100 * EFFECTIVE_SHARE:.0f} % of the gradient within {most}×{most} pixels, half of it within {half}×{half}"
    yield (
        f"mean of {effective.gradient.positions} outputs in "
        f"{format_count(effective.images, 'validation image')}, best checkpoint, step {effective.step}"
    )


def _compared(inspection: Inspection) -> Iterator[str]:
    """Entries on sizes to compare the receptive field with."""
    subject = inspection.subject
    if subject.patch_size:
        yield from _entry("training patch", f"{subject.patch_size}×{subject.patch_size} pixels")
    if subject.cell_diameter:
        cells = f"the median of {len(subject.cell_diameters)} in training images{subject.doubt}"
        yield from _entry("cells", f"{subject.cell_diameter:.0f} pixels across, {cells}")
