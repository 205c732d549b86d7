"""Sections that pages share: the model, the confusion matrix, the data, the environment, the experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.config.experiment import Experiment, Part
from yeastexp.drawing import plots
from yeastexp.errors import UserError
from yeastexp.evaluation.measure import approximate_in
from yeastexp.evaluation.source import Source
from yeastexp.inspection import model as model_inspection
from yeastexp.inspection.model import Inspection
from yeastexp.metrics.summary import shown
from yeastexp.report.html import Block, Chart, Code, Details, Fact, Facts, Paragraph, Section, Table
from yeastexp.system.formatting import format_bytes, format_count
from yeastexp.training.run_directory import RunDirectory

AGGREGATION = (
    "“per image” is the mean over images with its 95 % t-interval; “pooled” is computed over the pixels of all images. "
    "A class that is absent from both the ground truth and the prediction of an image is left out of that image's mean."
)


AGGREGATION_OF_CELLS = (
    "“per image” is the mean over images with its 95 % t-interval; “pooled” is computed from the counts of cells (of "
    "pixels for IoU) of all images. An image without cells in both ground truth and prediction has no score of cells."
)


def model_section(path: Path) -> tuple[Section, Inspection | None]:
    """The section on a model's parameters and receptive field beside the size of the cells, with the inspection.

    The inspection is None, and the section says why, if the model cannot be inspected.
    """
    try:
        inspected = model_inspection.inspect(model_inspection.of_experiment(path))
    except UserError as error:
        return Section("Model", [Paragraph(f"Not inspected: {error}", warning=True)]), None
    blocks: list[Block] = [Facts(_model_facts(inspected))]
    if chart := _scale_chart(inspected):
        blocks.append(chart)
    blocks += [Paragraph(f"{advice[:1].upper()}{advice[1:]}.", warning=True) for advice in inspected.advice]
    blocks.append(
        Details("all layers, as `inspect` prints them", [Code("\n".join(model_inspection.lines(inspected)), "layers")])
    )
    return Section("Model", blocks, "its size and its receptive field, beside the size of a cell"), inspected


def _model_facts(inspected: Inspection) -> list[Fact]:
    subject, total = inspected.subject, sum(parameters.total for parameters in inspected.parameters)
    facts = [
        Fact("parameters", f"{total:,}", f"{inspected.weights:,} without biases, those of norms included"),
        Fact("MACs", f"{inspected.macs:,}", f"for an image of {_shape(subject.image)} (C × H × W)"),
        Fact("training step", format_bytes(inspected.memory.total), f"a batch of {subject.batch} in float32"),
        Fact("receptive field", receptive_field_text(inspected), "the pixels that an output can depend on"),
    ]
    if subject.patch_size:
        facts.append(Fact("training patch", f"{subject.patch_size} × {subject.patch_size} px"))
    if diameter := subject.cell_diameter:
        height = inspected.survey.output.height
        ratio = "" if height.global_layer else f"; the receptive field is {height.size / diameter:.1f} cells wide"
        cells = f"median of {len(subject.cell_diameters)} cells in training images, after transforms{subject.doubt}"
        facts.append(Fact("cell diameter", f"{diameter:.0f} px", cells + ratio))
    else:
        facts.append(Fact("cell diameter", "unknown", "the training images are not available"))
    return facts


def _shape(lengths: Sequence[int]) -> str:
    return " × ".join(map(str, lengths))


def receptive_field_fact(inspected: Inspection | None) -> list[Fact]:
    """The headline fact on the receptive field beside the size of the cells; empty without an inspection."""
    if not inspected:
        return []
    subject = inspected.subject
    diameter = subject.cell_diameter
    note = f"median cell diameter {diameter:.0f} px{subject.doubt}" if diameter else "cells not measured: no data"
    return [Fact("receptive field", receptive_field_text(inspected), note)]


def receptive_field_text(inspected: Inspection) -> str:
    """The height and width of the receptive field in words."""
    return (
        " × ".join("whole image" if axis.global_layer else str(axis.size) for axis in inspected.survey.output.axes)
        + " px"
    )


def _scale_chart(inspected: Inspection) -> Chart | None:
    """A chart of receptive field, patch and median cell to scale; None if the field is the whole image."""
    height, width = inspected.survey.output.axes
    if height.global_layer or width.global_layer:
        return None
    subject = inspected.subject
    rectangles = {f"receptive field, {height.size} × {width.size} px": (float(height.size), float(width.size))}
    if subject.patch_size:
        rectangles[f"training patch, {subject.patch_size} × {subject.patch_size} px"] = (
            subject.patch_size,
            subject.patch_size,
        )
    diameter = subject.cell_diameter
    circles = {f"median cell, {diameter:.0f} px": diameter} if diameter else {}
    svg = plots.inline_svg(plots.to_scale(rectangles, circles, label="pixels"), "to-scale")
    return Chart("To scale", f"To scale: {'; '.join([*rectangles, *circles])}.", svg)


def confusion_table(counts: npt.NDArray[np.int64], classes: Sequence[str], note: str) -> Table:
    """The table of a confusion matrix (K, K): pixels by true and predicted class, each beside its share of the row."""
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
    numeric = frozenset(range(1, 2 + 2 * len(classes)))
    return Table(
        "pixels by true and predicted class", [*headings, "all pixels"], rows, numeric, shares=shares, note=note
    )


def environment_section(environment: Mapping[str, Any], note: str = "") -> Section:
    """The section on the environment: versions, machine, revision, digests and times."""
    rows = [[key, _text(value)] for key, value in _flat(environment)]
    table = Table("environment.json", ["key", "value"], rows)
    blocks: list[Block] = [Paragraph(note), table] if note else [table]
    return Section("Environment", blocks, "versions, machine and data that the run depended on")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items = []
    for key, value in tree.items():
        items += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return items


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def experiment_section(path: Path, command: str = "run", options: str = "") -> Section:
    """The section with the experiment's file, every default written out, and the command that repeats it."""
    text = RunDirectory(path).experiment.read_text(encoding="utf-8")
    repeat = Paragraph(f"To repeat it: `python -m yeastexp {command} {RunDirectory(path).experiment}{options}`")
    return Section("Experiment", [repeat, Code(text, "experiment.toml")], "with every default written out")


def experiment_facts(loaded: Experiment) -> Facts:
    """A line on each part of an experiment, with its options."""
    train = loaded.train
    length = f"{train.steps} steps" if train.steps else f"{train.epochs} epochs"
    monitor = shown(loaded.monitor, approximate_in(loaded))
    facts = [
        _fact("task", loaded.task.part),
        _fact("model", loaded.model),
        _fact("loss", loaded.loss or loaded.task.part),
        _fact("optimizer", loaded.optimizer),
        *([_fact("scheduler", loaded.scheduler)] if loaded.scheduler else []),
        Fact("length", length, f"batches of {train.batch_size}, seed {train.seed}, {train.precision}"),
        Fact("transforms", _names(loaded.transforms), "applied to every image"),
        Fact("augmentations", _names(loaded.augmentations), "random, applied to training patches only"),
        Fact("checkpoint", f"by {monitor}", "the best on the validation images and the last are kept"),
    ]
    return Facts(facts)


def _fact(name: str, part: Part) -> Fact:
    return Fact(name, part.name, ", ".join(f"{key} {_text(value)}" for key, value in part.options.items()))


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(part.name for part in parts) or "none"


def data_facts(loaded: Experiment, environment: Mapping[str, Any], source: Source | str, counts: str) -> Facts:
    """Lines on the data set, its files, the number (`counts`) and sizes of its images, and the size of a pixel."""
    digests: dict[str, str] = environment["digests"]["data"]
    options = ", ".join(f"{key} {_text(value)}" for key, value in loaded.dataset.options.items())
    facts = [
        Fact("data set", loaded.dataset.name, options),
        Fact("classes", ", ".join(loaded.task.classes), format_count(loaded.task.channels, "channel")),
        *(Fact("file", name, f"SHA-256 {digest}") for name, digest in digests.items()),
    ]
    if isinstance(source, str):
        return Facts([*facts, Fact("images", "not available", source)])
    dataset = source.dataset
    names = [name for split in dataset.splits.values() for name in split]
    facts.append(Fact("images", counts, _sizes({tuple(dataset.shape(name)) for name in names})))
    if pixel_um := dataset.read(names[0]).pixel_um:
        facts.append(Fact("pixel", f"{pixel_um:g} µm"))
    if dataset.normalization:
        values = ", ".join(f"{key} {_text(value)}" for key, value in dataset.normalization.items())
        facts.append(Fact("normalised in the file", "yes", values))
    return Facts(facts)


def _sizes(shapes: set[tuple[int, ...]]) -> str:
    ends = [min(shapes), max(shapes)] if len(shapes) > 1 else list(shapes)
    return f"{' to '.join(map(_shape, ends))} (C × H × W)"
