"""What is found out about a model, and what clashes in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path

from torch import nn

from yeastexp.data.transforms import pipeline
from yeastexp.inspection.model import effective_field
from yeastexp.inspection.model.target import Subject
from yeastexp.nets import costs
from yeastexp.nets.costs import Memory, Parameters
from yeastexp.nets.receptive_field import Axis, ReceptiveField, Survey, survey
from yeastexp.prediction.predictor import load_predictor
from yeastexp.sample import Sample

VALIDATION_IMAGES = 8
"""On which the effective receptive field is measured, at most."""

MOST = 0.95
"""The share of the gradient that is said to be where a model looks."""


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
class Effective:
    """Where a trained model looks: the spread of its gradient on some validation images."""

    spread: effective_field.Spread
    step: int
    """Of the best checkpoint."""
    images: int
    example: Sample
    """The first of the images, as the model sees it."""


@dataclass(frozen=True)
class Inspection:
    """Everything that was found out about a model."""

    subject: Subject
    survey: Survey
    parameters: tuple[Parameters, ...]
    rows: tuple[Row, ...]
    multiply_adds: int
    memory: Memory
    effective: Effective | None = None

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
        return tuple(_advice(self))


def inspect(subject: Subject) -> Inspection:
    """Look into a model; UserError where it cannot be run on such an image."""
    channels, height, width = subject.image
    found = survey(subject.model, channels, (height, width))
    parameters = tuple(costs.parameters(subject.model))
    by_layer, total = costs.multiply_adds(subject.model, subject.image)
    memory = costs.memory(subject.model, (subject.batch, *subject.image), subject.optimizer)
    rows = tuple(_rows(subject.model, found, parameters, by_layer))
    return Inspection(subject, found, parameters, rows, total, memory)


def with_effective_field(found: Inspection, run: Path) -> Inspection:
    """The same, with where the best checkpoint of a run looks; UserError where its checkpoint or data is gone."""
    loaded = load_predictor(run)
    dataset = loaded.experiment.dataset.build()
    samples = []
    for name in dataset.splits["val"][:VALIDATION_IMAGES]:
        sample = dataset.read(name)
        scaled = replace(sample, image=loaded.rescaled(sample.image, dataset.normalization))
        samples.append(pipeline.whole(loaded.transforms, scaled))
    images = (one.image.to(loaded.device) for one in samples)
    spread = effective_field.measure(loaded.model, images, found.survey.output)
    return replace(found, effective=Effective(spread, loaded.step, len(samples), samples[0]))


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


def _advice(found: Inspection) -> Iterator[str]:
    window, cells = found.subject.window, found.subject.cell_diameters
    height, width = found.survey.output.axes
    if found.survey.convolutional_part or not window:
        return
    median = found.subject.cell_diameter or 0.0
    said = f"{median:.0f} pixels across (median of {len(cells)})"
    if whole := height.whole or width.whole:
        yield (
            f"every output sees the whole image through {whole}: a window of {window} pixels in training, all "
            "of the image in validation; batch norm sees the same in both"
        )
    else:
        if window < max(height.size, width.size):
            yield (
                f"the window of {window} pixels is smaller than the receptive field of {_extent(height, width)}: "
                "in training no output sees all that it sees in a whole image; harmless as a rule, as the rim of the "
                "field counts little; else set a larger [train] window"
            )
        if median > min(height.size, width.size):
            yield (
                f"the cells are larger than the receptive field of {_extent(height, width)}: {said}, so no output "
                "sees a whole one; take more levels, larger kernels or smaller images (downscale)"
            )
    if found.effective and median > (side := found.effective.spread.side(MOST)):
        yield (
            f"the cells are larger than the effective receptive field, {100 * MOST:.0f} % of the gradient within "
            f"{side}×{side} pixels: {said}, so the trained model looks at parts of them; train longer, take more "
            "levels or smaller images (downscale)"
        )


def _extent(height: Axis, width: Axis) -> str:
    return f"{height.size}×{width.size} pixels"
