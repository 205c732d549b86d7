"""Sections that pages share: the model beside the cells, the confusion matrix, the environment, the experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.config.experiment import Experiment, Part
from yeastexp.errors import UserError
from yeastexp.evaluation.evaluate import Source
from yeastexp.inspection import model as model_inspection
from yeastexp.inspection.model import Inspection
from yeastexp.nets.receptive_field import Axis
from yeastexp.report.html import Block, Chart, Code, Details, Fact, Facts, Label, Paragraph, Section, Stroke, Table
from yeastexp.system.formatting import format_bytes, format_count
from yeastexp.training import run_directory

AGGREGATION = (
    "“per image” is the mean over images, with its 95 % t-interval; “pooled” takes the pixels of all images at once. "
    "A class that is neither in an image's truth nor in its prediction is left out of that image's mean."
)

WIDTH = 460.0
SIDE = 210.0
"""Of the largest square of the drawing to scale."""


def model(path: Path) -> tuple[Section, Inspection | None]:
    """Parameters and receptive field beside the cells of some training images, of a run or an experiment."""
    try:
        found = model_inspection.inspect(model_inspection.of_experiment(path))
    except UserError as error:
        return Section("Model", [Paragraph(f"Not looked into: {error}", warning=True)]), None
    blocks: list[Block] = [Facts(_model_facts(found))]
    if drawing := _to_scale(found):
        blocks.append(drawing)
    blocks += [Paragraph(f"{one[:1].upper()}{one[1:]}.", warning=True) for one in found.advice]
    blocks.append(
        Details("every layer, as `inspect` shows it", [Code("\n".join(model_inspection.lines(found)), "layers")])
    )
    return Section("Model", blocks, "what it holds, and how far an output sees beside the size of a cell"), found


def _model_facts(found: Inspection) -> list[Fact]:
    subject, total = found.subject, sum(one.total for one in found.parameters)
    facts = [
        Fact("parameters", f"{total:,}", f"{found.weights:,} without biases and norm shifts"),
        Fact("multiply-adds", f"{found.multiply_adds:,}", f"an image of {_shape(subject.image)} (C × H × W)"),
        Fact("training step", format_bytes(found.memory.total), f"a batch of {subject.batch} in float32"),
        Fact("receptive field", field_of(found), "pixels that an output depends on at most"),
    ]
    if subject.window:
        facts.append(Fact("training window", f"{subject.window} × {subject.window} px"))
    if diameter := subject.cell_diameter:
        height = found.survey.output.height
        wide = "" if height.whole else f"; the receptive field is {height.size / diameter:.1f} cells wide"
        cells = (
            f"median of {len(subject.cell_diameters)} cells of training images, as the model sees them{subject.doubt}"
        )
        facts.append(Fact("cell diameter", f"{diameter:.0f} px", cells + wide))
    else:
        facts.append(Fact("cell diameter", "not known", "the training images are not there"))
    return facts


def _shape(lengths: Sequence[int]) -> str:
    return " × ".join(map(str, lengths))


def field_of(found: Inspection) -> str:
    """How far an output sees, height and width."""
    return " × ".join(_size(axis) for axis in found.survey.output.axes) + " px"


def cells(inspected: Inspection) -> str:
    """How large the cells are that a receptive field is to be compared with."""
    diameter = inspected.subject.cell_diameter
    doubt = inspected.subject.doubt
    return f"cells are {diameter:.0f} px across (median){doubt}" if diameter else "cells not measured: no data"


def _size(axis: Axis) -> str:
    return "whole image" if axis.whole else str(axis.size)


def _to_scale(found: Inspection) -> Chart | None:
    """Window, receptive field and median cell about one centre; nothing where a field has no end."""
    height, width = found.survey.output.axes
    if height.whole or width.whole:
        return None
    subject = found.subject
    squares = {"receptive field": (height.size, width.size, "look-0", f"{height.size} × {width.size} px")}
    if subject.window:
        squares["training window"] = (subject.window, subject.window, "look-1", f"{subject.window} px")
    if diameter := subject.cell_diameter:
        squares["median cell"] = (round(diameter), round(diameter), "look-2", f"{diameter:.0f} px across")
    ordered = sorted(squares.items(), key=lambda one: -one[1][0])
    scale = SIDE / max(max(one[1][:2]) for one in ordered)
    middle = SIDE / 2 + 8
    strokes, labels = [], []
    for index, (name, (down, across, look, said)) in enumerate(ordered):
        h, w = down * scale / 2, across * scale / 2
        place = 24.0 + 40 * index
        shape = (
            f"M{middle - w:.1f} {middle}a{w:.1f} {w:.1f} 0 1 0 {2 * w:.1f} 0a{w:.1f} {w:.1f} 0 1 0 {-2 * w:.1f} 0z"
            if name == "median cell"
            else f"M{middle - w:.1f} {middle - h:.1f}h{2 * w:.1f}v{2 * h:.1f}h{-2 * w:.1f}z"
        )
        strokes.append(Stroke(shape, f"line {look}", f"{name}: {said}"))
        strokes.append(Stroke(f"M{middle + w:.1f} {max(middle - h, place):.1f}L{SIDE + 30} {place}", "leader"))
        strokes.append(Stroke(f"M{SIDE + 34} {place}h26", f"line {look}"))
        labels += [Label(SIDE + 68, place + 4, name, "name"), Label(SIDE + 68, place + 19, said, "tick")]
    told = "; ".join(f"{name} {said}" for name, (*_, said) in ordered)
    return Chart("to-scale", "To scale", f"To scale, from large to small: {told}.", WIDTH, SIDE + 16, strokes, labels)


def confusion(counts: npt.NDArray[np.int64], classes: Sequence[str], note: str) -> Table:
    """Pixels by true class (rows) and predicted class, each beside its share of the row."""
    totals = counts.sum(axis=1)
    rows, shares = [], {}
    for index, name in enumerate(classes):
        row = [name]
        for column, count in enumerate(counts[index].tolist()):
            share = count / totals[index] if totals[index] else math.nan
            row += [f"{count:,}", "–" if math.isnan(share) else f"{share:.2%}"]
            shares[index, 2 + 2 * column] = 0.0 if math.isnan(share) else float(share)
        rows.append([*row, f"{int(totals[index]):,}"])
    headings = ["true \\ predicted", *(text for name in classes for text in (f"{name}, pixels", f"{name}, share"))]
    numbers = frozenset(range(1, 2 + 2 * len(classes)))
    return Table(
        "pixels by true and predicted class", [*headings, "all pixels"], rows, numbers, shares=shares, note=note
    )


def environment(found: Mapping[str, Any], note: str = "") -> Section:
    """Versions, machine, revision, digests, times."""
    rows = [[key, _text(value)] for key, value in _flat(found)]
    blocks: list[Block] = [Table("environment.json", ["key", "value"], rows)]
    return Section("Environment", [*([Paragraph(note)] if note else []), *blocks], "what the run depended on")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in tree.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def resolved(path: Path, verb: str = "run", options: str = "") -> Section:
    """The experiment with every default written out, and the command that repeats what was made of it."""
    text = (path / run_directory.EXPERIMENT).read_text(encoding="utf-8")
    again = Paragraph(f"`python -m yeastexp {verb} {path / run_directory.EXPERIMENT}{options}` repeats it.")
    return Section("Experiment", [again, Code(text, "experiment.toml")], "resolved: every default is written out")


def parts(loaded: Experiment) -> Facts:
    """What was run, a part a line."""
    train = loaded.train
    length = f"{train.steps} steps" if train.steps else f"{train.epochs} epochs"
    facts = [
        _fact("model", loaded.model),
        _fact("loss", loaded.loss),
        _fact("optimizer", loaded.optimizer),
        *([_fact("scheduler", loaded.scheduler)] if loaded.scheduler else []),
        Fact("length", length, f"batches of {train.batch}, seed {train.seed}, {train.precision}"),
        Fact("transforms", _names(loaded.transforms), "every image, also where it is only scored"),
        Fact("augmentations", _names(loaded.augmentations), "training windows only, random"),
        Fact("checkpoint", f"by {loaded.monitor}", "the best on the validation images is kept, and the last"),
    ]
    return Facts(facts)


def _fact(name: str, part: Part) -> Fact:
    return Fact(name, part.name, ", ".join(f"{key} {_text(value)}" for key, value in part.options.items()))


def _names(some: Sequence[Part]) -> str:
    return ", ".join(part.name for part in some) or "none"


def data(loaded: Experiment, environment: Mapping[str, Any], source: Source | str, counted: str) -> Facts:
    """What it was trained and scored on: the data set, its file, its images as they were `counted`, their pixels."""
    digests: dict[str, str] = environment["digests"]["data"]
    options = ", ".join(f"{key} {_text(value)}" for key, value in loaded.dataset.options.items())
    facts = [
        Fact("data set", loaded.dataset.name, options),
        Fact("classes", ", ".join(loaded.task.classes), format_count(loaded.task.channels, "channel")),
        *(Fact("file", name, f"SHA-256 {digest}") for name, digest in digests.items()),
    ]
    if isinstance(source, str):
        return Facts([*facts, Fact("images", "gone", source)])
    dataset = source.dataset
    names = [name for some in dataset.splits.values() for name in some]
    facts.append(Fact("images", counted, _sizes({tuple(dataset.shape(name)) for name in names})))
    if pixel_um := dataset.read(names[0]).pixel_um:
        facts.append(Fact("pixel", f"{pixel_um:g} µm"))
    if dataset.normalization:
        figures = ", ".join(f"{key} {_text(value)}" for key, value in dataset.normalization.items())
        facts.append(Fact("stored normalised", "yes", figures))
    return Facts(facts)


def _sizes(shapes: set[tuple[int, ...]]) -> str:
    ends = [min(shapes), max(shapes)] if len(shapes) > 1 else list(shapes)
    return f"{' to '.join(map(_shape, ends))} (C × H × W)"
