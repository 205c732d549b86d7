"""A model looked into without training it: parameters, receptive fields, memory, multiply-adds, and advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from yeastexp import assemble, costs, document, experiment, plugins
from yeastexp.costs import Memory, Parameters, stepped
from yeastexp.errors import UserError
from yeastexp.experiment import EXCLUSIVE, Experiment, Train
from yeastexp.optimizers import adamw
from yeastexp.receptive_field import Axis, ReceptiveField, Survey, survey
from yeastexp.registry import model as models
from yeastexp.transforms import chain

DEFAULT_SIDE = 256
"""Pixels of an image where nothing else says how large it is."""
CELL_IMAGES = 8
"""Training images whose cells are measured."""


@dataclass(frozen=True)
class Subject:
    """What is looked into: a model, and how it would be trained."""

    name: str
    model: nn.Module
    image: tuple[int, int, int]
    """Channels, height and width."""
    batch: int
    window: int | None
    optimizer: torch.optim.Optimizer | None
    """Over stand-ins for the model's parameters, stepped once; nothing where it has none."""
    cell_diameters: tuple[float, ...] = ()
    """In pixels that the model sees, of the cells of some training images, where the data is there."""


@dataclass(frozen=True)
class Row:
    """A layer's call: what it gives (C, H, W) and sees, what it holds and costs for one image."""

    layer: str
    kind: str
    shape: tuple[int, ...]
    field: ReceptiveField | None
    parameters: Parameters | None
    multiply_adds: int | None
    """Of all calls of this layer together; of the first call alone where there are several."""
    in_place: bool


@dataclass(frozen=True)
class Inspection:
    """Everything that was found out about a model."""

    subject: Subject
    survey: Survey
    parameters: tuple[Parameters, ...]
    rows: tuple[Row, ...]
    multiply_adds: int
    memory: Memory

    @property
    def weights(self) -> int:
        """Parameters without biases and norm shifts; norm scales count."""
        return sum(one.weights + one.norm_scales for one in self.parameters)

    @property
    def largest(self) -> list[Row]:
        """The three largest outputs that take memory of their own."""
        return sorted((row for row in self.rows if not row.in_place), key=lambda row: -prod(row.shape))[:3]

    @cached_property
    def advice(self) -> tuple[str, ...]:
        """What clashes."""
        return tuple(_advice(self.subject, self.survey))


def inspect(subject: Subject) -> Inspection:
    """Look into a model; UserError where it cannot be run on such an image."""
    channels, height, width = subject.image
    found = survey(subject.model, channels, (height, width))
    parameters = tuple(costs.parameters(subject.model))
    by_layer, total = costs.multiply_adds(subject.model, subject.image)
    memory = costs.memory(subject.model, (subject.batch, *subject.image), subject.optimizer)
    return Inspection(
        subject, found, parameters, tuple(_rows(subject.model, found, parameters, by_layer)), total, memory
    )


def of_experiment(path: Path, settings: Sequence[str] = (), image: tuple[int, int, int] | None = None) -> Subject:
    """The model of an experiment file; the data need not be there, but without it nothing is said of cells."""
    loaded = experiment.load(path, settings, data=False)
    if image and image[0] != loaded.task.channels:
        raise UserError(f"--input: has {image[0]} channels, but [task] channels of {path} is {loaded.task.channels}")
    model = assemble.build_model(loaded)
    diameters, smallest = _data(loaded)
    window = assemble.window_side(loaded.train, smallest)
    return Subject(
        name=f"{path}: {loaded.model.name}",
        model=model,
        image=image or (loaded.task.channels, window, window),
        batch=loaded.train.batch,
        window=window,
        optimizer=stepped(loaded.optimizer.build, model),
        cell_diameters=diameters,
    )


def of_model(
    name: str, settings: Sequence[str] = (), image: tuple[int, int, int] | None = None, classes: int = 2
) -> Subject:
    """A registered model with options such as `width=8`; trained, it would be with AdamW and `[train]`'s batch."""
    plugins.load_installed()
    channels = image[0] if image else 1
    try:
        model = models[name](channels, classes, **_options(name, settings))
    except UserError as error:
        where = f" {error.key}" if error.key else ""
        raise UserError(
            *(f"model '{name}'{where}: {fault}" if error.key else fault for fault in error.faults)
        ) from None
    if not isinstance(model, nn.Module):
        raise UserError(f"model '{name}': makes a {type(model).__name__}, which is no nn.Module")
    side = getattr(model, "size", DEFAULT_SIDE)  # a model that is made for one size says so
    return Subject(
        name=name,
        model=model,
        image=image or (channels, side, side),
        batch=Train().batch,
        window=None,
        optimizer=stepped(adamw, model),
    )


def _options(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """The options of a model from `--set`, checked as those of a file are."""
    schema = models.find(name).schema
    given = document.Document(document.Place(f"--model {name}"), {"model": {}})
    for setting in settings:
        key = setting.partition("=")[0]
        document.override(given, setting if "." in key or key == "extends" else f"model.{setting}", EXCLUSIVE)
        if set(given.values) != {"model"} or "name" in given.values["model"]:
            raise UserError(f"--set {setting}: beside --model only the model's options can be set, as in width=8")
    typed, problems = schema.check(given.values["model"])
    if problems:
        raise UserError(*(f"--model {name}: {'.'.join(map(str, one.keys))}: {one.message}" for one in problems))
    return typed


def _data(loaded: Experiment) -> tuple[tuple[float, ...], int]:
    """The diameters of some cells and the shortest side of the training images; where there is no data, defaults."""
    try:
        dataset = loaded.dataset.build()
        transforms = assemble.fitted_transforms(loaded, dataset)
        names = dataset.splits["train"]
        found: list[float] = []
        for name in names[:CELL_IMAGES]:
            sample = dataset.read(name)
            seen = chain.whole(transforms, sample)
            found += diameters(seen.maps.get("instances"), seen.labels)
            scale = min(seen.size) / min(sample.size)
        return tuple(found), int(scale * min(min(dataset.shape(name)[1:]) for name in names))
    except (UserError, OSError):
        return (), assemble.DEFAULT_WINDOW


def diameters(instances: Tensor | None, labels: Tensor) -> list[float]:
    """Diameters of circles of the area of each instance, or of each connected piece of the foreground."""
    pieces = ndimage.label(labels.numpy() > 0)[0] if instances is None else instances.numpy()
    return [2 * sqrt(area / np.pi) for area in np.unique(pieces[pieces > 0], return_counts=True)[1].tolist()]


def _rows(
    model: nn.Module, found: Survey, parameters: Sequence[Parameters], multiply_adds: Mapping[str, int]
) -> Iterator[Row]:
    held = {one.layer: one for one in parameters}
    layers = dict(model.named_modules())
    seen: Counter[str] = Counter()
    for step, field in found.layers:
        layer = layers[step.name]
        called = type(layer).__name__ == step.kind
        first = called and not seen[step.name]
        seen[step.name] += called
        yield Row(
            layer=step.name,
            kind=step.kind,
            shape=step.shape[1:],
            field=field,
            parameters=held.get(step.name) if first else None,
            multiply_adds=multiply_adds.get(step.name) if first else None,
            in_place=called and (bool(getattr(layer, "inplace", False)) or isinstance(layer, nn.Flatten | nn.Identity)),
        )


def _advice(subject: Subject, found: Survey) -> Iterator[str]:
    height, width = found.output.axes
    whole = height.whole or width.whole
    if found.convolutional_part or not subject.window:
        return
    if whole:
        yield (
            f"every output sees the whole image through {whole}: a window of {subject.window} pixels in training, all "
            "of the image in validation; batch norm sees the same in both"
        )
        return
    if subject.window < max(height.size, width.size):
        yield (
            f"the window of {subject.window} pixels is smaller than the receptive field of {_extent(height, width)}: "
            "in training no output sees all that it sees in a whole image; take a larger [train] window or a model "
            "with a smaller field"
        )
    median = float(np.median(subject.cell_diameters)) if subject.cell_diameters else 0.0
    if median > min(height.size, width.size):
        yield (
            f"the cells are larger than the receptive field of {_extent(height, width)}: {median:.0f} pixels across "
            f"(median of {len(subject.cell_diameters)}), so no output sees a whole one; take more levels, larger "
            "kernels or smaller images (downscale)"
        )


def _extent(height: Axis, width: Axis) -> str:
    return f"{height.size}×{width.size} pixels"


def as_json(found: Inspection) -> dict[str, Any]:
    """All figures, for scripts; shapes without the batch."""
    part = found.survey.convolutional_part
    return {
        "model": found.subject.name,
        "input": list(found.subject.image),
        "output_shape": list(found.survey.output.shape[1:]),
        **_field(found.survey.output),
        "convolutional_part": part and {"layer": part.layer, "output_shape": list(part.shape[1:]), **_field(part)},
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
        "memory": {"batch": found.subject.batch, **vars(found.memory), "total": found.memory.total},
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


def lines(found: Inspection) -> Iterator[str]:
    """All figures, for people."""
    shape = "×".join(map(str, found.subject.image))
    yield f"{found.subject.name}, an image of {shape} (C×H×W)"
    yield ""
    yield from _table(found)
    yield ""
    yield from _totals(found)
    yield ""
    if part := found.survey.convolutional_part:
        yield f"convolutional part   {'×'.join(map(str, part.shape[1:]))} (C×H×W) after {part.layer}"
        yield from _field_lines(part)
    yield f"output               {'×'.join(map(str, found.survey.output.shape[1:]))}"
    yield from _field_lines(found.survey.output)
    for one in found.advice:
        yield f"advice               {one}"


HEADINGS = ("layer", "kind", "output C×H×W", "weights", "biases", "norm", "stride", "sees", "multiply-adds")


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
        "×".join(map(str, row.shape)),
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
    yield f"parameters           {sum(one.total for one in every):,} with biases"
    yield f"                     {found.weights:,} without biases{said}"
    yield f"multiply-adds        {found.multiply_adds:,} an image, of convolutions and matrix products"
    biggest = (f"{row.layer or row.kind} {'×'.join(map(str, row.shape))}" for row in found.largest)
    yield f"largest activations  {'; '.join(biggest)}"
    memory = found.memory
    yield (
        f"training step        {_bytes(memory.total)} for a batch of {found.subject.batch} in float32, and what the "
        "backward pass works with"
    )
    yield (
        f"                     {_bytes(memory.activations)} activations saved, {_bytes(memory.parameters)} parameters, "
        f"{_bytes(memory.gradients)} gradients, {_bytes(memory.optimizer_state)} optimizer"
    )


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _field_lines(field: ReceptiveField) -> Iterator[str]:
    named = {"receptive field": field.height}
    if field.height != field.width:
        named = {"receptive field, height": field.height, "receptive field, width": field.width}
    for name, axis in named.items():
        if axis.whole:
            yield f"{name:<20} the whole image, through {axis.whole}"
            continue
        counts = Counter(phase.size for phase in axis.phases).most_common()
        sizes = ", ".join(f"{size} pixels at {count} of {len(axis.phases)} phases" for size, count in counts)
        said = sizes if len(counts) > 1 else f"{axis.size} pixels"
        yield f"{name:<20} {said}; at most {axis.before} before an output's own and {axis.after} after it"
        if 1 < len(axis.phases) <= 64:
            each = [f"{one.phase}: {one.before}+1+{one.after}" for one in axis.phases]
            yield "                     by phase, before + own pixel + after:"
            for start in range(0, len(each), 8):
                yield f"                     {', '.join(each[start : start + 8])}"
        if axis.uneven:
            yield f"                     the worst case at this size: {axis.uneven} does not do the same everywhere"
    if not field.height.whole:
        yield f"jump                 {field.jump} pixels"
