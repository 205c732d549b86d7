"""The analysis of a model: parameters, MACs, memory and receptive field, with advice on what does not go together."""

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
"""The most images on which the effective receptive field is measured."""

EFFECTIVE_SHARE = 0.95
"""The share of the gradient that lies within the effective receptive field."""


@dataclass(frozen=True)
class LayerRow:
    """One call of a layer: its output (C, H, W) and receptive field, its parameters and MACs for one image.

    Parameters and MACs stand at the first call of a layer only, as its later calls share them.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    field: ReceptiveField | None
    parameters: Parameters | None
    macs: int | None
    """The MACs of all calls of this layer together."""
    in_place: bool
    """Whether the output takes no memory of its own."""
    kernel: tuple[int, ...] = ()
    """The height and width of a pooling's kernel."""


@dataclass(frozen=True)
class EffectiveField:
    """The effective receptive field of a trained model on some validation images."""

    gradient: effective_field.GradientDensity
    step: int
    """The step of the best checkpoint."""
    images: int
    example: Sample
    """The first of the images, after the transforms."""


@dataclass(frozen=True)
class Inspection:
    """The results of a model's analysis."""

    subject: Subject
    survey: Survey
    parameters: tuple[Parameters, ...]
    rows: tuple[LayerRow, ...]
    macs: int
    memory: Memory
    effective: EffectiveField | None = None

    @property
    def weights(self) -> int:
        """The number of parameters without biases, affine weights of norms included."""
        return sum(held.weights + held.affine_weights for held in self.parameters)

    @property
    def largest(self) -> list[LayerRow]:
        """The three largest outputs that take memory of their own."""
        return sorted((row for row in self.rows if not row.in_place), key=lambda row: -prod(row.shape))[:3]

    @cached_property
    def advice(self) -> tuple[str, ...]:
        """Sentences on sizes that do not go together, each with a remedy."""
        return tuple(_advice(self))


def inspect(subject: Subject) -> Inspection:
    """Analyse a model. Raises UserError if it cannot be run on the subject's image."""
    channels, height, width = subject.image
    fields = survey(subject.model, channels, (height, width))
    parameters = tuple(costs.parameters(subject.model))
    by_layer, total = costs.macs(subject.model, subject.image)
    memory = costs.memory(subject.model, (subject.batch, *subject.image), subject.optimizer)
    rows = tuple(_rows(subject.model, fields, parameters, by_layer))
    return Inspection(subject, fields, parameters, rows, total, memory)


def with_effective_field(inspection: Inspection, run: Path) -> Inspection:
    """Add the effective field of a run's best checkpoint. Raises UserError if the checkpoint or the data are gone."""
    loaded = load_predictor(run)
    dataset = loaded.experiment.dataset.build()
    samples = []
    for name in dataset.splits["val"][:VALIDATION_IMAGES]:
        sample = dataset.read(name)
        scaled = replace(sample, image=loaded.rescaled(sample.image, dataset.normalization))
        samples.append(pipeline.whole(loaded.transforms, scaled))
    images = (sample.image.to(loaded.device) for sample in samples)
    gradient = effective_field.measure(loaded.model, images, inspection.survey.output)
    return replace(inspection, effective=EffectiveField(gradient, loaded.step, len(samples), samples[0]))


def _rows(
    model: nn.Module, fields: Survey, parameters: Sequence[Parameters], macs: Mapping[str, int]
) -> Iterator[LayerRow]:
    held = {layer.layer: layer for layer in parameters}
    layers = dict(model.named_modules())
    calls: Counter[str] = Counter()
    for call, field in fields.layers:
        layer = layers[call.name]
        # A call may also be one of an operator within the layer's forward: the layer's parameters are not that one's.
        of_layer = type(layer).__name__ == call.kind
        first = of_layer and not calls[call.name]
        calls[call.name] += of_layer
        in_place = bool(getattr(layer, "inplace", False)) or isinstance(layer, nn.Flatten | nn.Identity)
        yield LayerRow(
            layer=call.name,
            kind=call.kind,
            shape=call.shape[1:],
            field=field,
            parameters=held.get(call.name) if first else None,
            macs=macs.get(call.name) if first else None,
            in_place=of_layer and in_place,
            kernel=_pool_kernel(layer) if of_layer else call.kernel,
        )


def _pool_kernel(layer: nn.Module) -> tuple[int, ...]:
    """The kernel size of a pooling layer; empty for others, as convolutions show theirs in their weights' factors."""
    kernel = getattr(layer, "kernel_size", ()) if not any(True for _ in layer.parameters()) else ()
    return (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)


def _advice(inspection: Inspection) -> Iterator[str]:
    patch, cells = inspection.subject.patch_size, inspection.subject.cell_diameters
    height, width = inspection.survey.output.axes
    if inspection.survey.convolutional_part or not patch:
        return
    median = inspection.subject.cell_diameter or 0.0
    size = f"{median:.0f} pixels across (median of {len(cells)})"
    if layer := height.global_layer or width.global_layer:
        yield (
            f"every output depends on the whole image, through {layer}: in training on a patch of {patch} pixels, in "
            "validation on the image; with batch norm both are alike"
        )
    else:
        if patch < max(height.size, width.size):
            yield (
                f"patches of {patch} pixels are smaller than the receptive field of {_extent(height, width)}: in "
                "training no output has all the context that it has in a whole image; usually harmless, as pixels at "
                "the edge of the field contribute little; otherwise set a larger [patches] size"
            )
        if median > min(height.size, width.size):
            yield (
                f"cells are larger than the receptive field of {_extent(height, width)}: {size}, so no output depends "
                "on a whole cell; use more levels, larger kernels or smaller images (downscale)"
            )
    if inspection.effective and median > (side := inspection.effective.gradient.side(EFFECTIVE_SHARE)):
        yield (
            f"cells are larger than the effective receptive field, {100 * EFFECTIVE_SHARE:.0f} % of the gradient "
            f"within {side}×{side} pixels: {size}, so the trained model uses parts of them; train longer, or use more "
            "levels or smaller images (downscale)"
        )


def _extent(height: Axis, width: Axis) -> str:
    return f"{height.size}×{width.size} pixels"
