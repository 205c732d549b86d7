"""What a trained model gets on whole images: counted, scored, written down and read back.

Everything is made of whole numbers counted in each image, so that the same figures come out whatever their order.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.markup import escape
from rich.table import Table
from scipy import ndimage
from torch import Tensor

from yeastexp.config.experiment import Experiment
from yeastexp.errors import UserError
from yeastexp.metrics import baselines
from yeastexp.metrics.pixels import Accuracy, BoundaryF1, Dice, IoU, PerImageMetric, Scores, confusion, most_likely
from yeastexp.metrics.summary import Summary, as_csv, final_table, rows_of, summarise
from yeastexp.prediction.predictor import Predictor, Which
from yeastexp.sample import IGNORE, Sample
from yeastexp.system import files
from yeastexp.system.formatting import format_score
from yeastexp.training import build
from yeastexp.training.step import score

FOLDER, FIGURES, PER_IMAGE = "evaluations", "evaluation.json", "per_image.csv"

TOLERANCE_PX = 2.0
"""Of the boundary F1, where neither the command nor the experiment says another."""

SHARES = ("accuracy", "iou", "dice", "boundary_f1")
"""The metrics of every evaluation; none of them can be below 0 or above 1."""

PIXELS, CELLS = "pixels", "cells"

PerImage = dict[str, dict[str, list[float | None]]]
"""Scores by metric and class, an image an element; nothing where an image has none."""


class _Pixels(PerImageMetric):
    """Pixels by true and predicted class; its score is the accuracy."""

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        return confusion(prediction, labels, self.classes).flatten()

    def score(self, counts: Tensor) -> Tensor:
        return counts.reshape(self.classes, self.classes).diagonal().sum().double() / counts.sum()


class _Cells(PerImageMetric):
    """Connected regions of each class, those that touch at a corner being one: true ones, then predicted ones.

    The score is how many are predicted for each true one. Pixels without truth are part of none.
    """

    def counts(self, prediction: Tensor, labels: Tensor) -> Tensor:
        unknown = labels == IGNORE
        maps = [one.masked_fill(unknown, IGNORE).cpu().numpy() for one in (labels, prediction)]
        return torch.tensor([[_regions(one == label) for label in range(self.classes)] for one in maps]).flatten()

    def score(self, counts: Tensor) -> Tensor:
        true, predicted = counts.reshape(2, self.classes).double()
        return torch.where(true > 0, predicted / true, torch.nan)


def _regions(mask: npt.NDArray[np.bool_]) -> int:
    return int(ndimage.label(mask, structure=np.ones((3, 3)))[1])


class _Instances(PerImageMetric):
    """Ids of the map `instances` within each class."""

    def counts(  # type: ignore[override]  # it asks for a map, by its name
        self, prediction: Tensor, labels: Tensor, *, instances: Tensor
    ) -> Tensor:
        ids = [instances[(labels == label) & (instances > 0)].unique() for label in range(self.classes)]
        return torch.tensor([len(found) for found in ids])

    def score(self, counts: Tensor) -> Tensor:
        return counts.double()


def tolerance_of(experiment: Experiment) -> float:
    """The tolerance of an experiment's own boundary F1 in pixels, or `TOLERANCE_PX`."""
    own = (part.options.get("tolerance_px") for part in experiment.metrics if part.name == "boundary_f1")
    return next((float(found) for found in own if found is not None), TOLERANCE_PX)


def metrics_of(experiment: Experiment, maps: Collection[str], tolerance_px: float) -> dict[str, PerImageMetric]:
    """The four of every evaluation, then those of the experiment that data with these maps can be scored with."""
    own, classes = build.build_metrics(experiment), len(experiment.task.classes)
    found: dict[str, PerImageMetric] = {
        "accuracy": Accuracy(classes),
        "iou": IoU(classes),
        "dice": Dice(classes),
        "boundary_f1": BoundaryF1(classes, tolerance_px),
    }
    return found | {name: one for name, one in own.items() if name not in found and {*one.maps} <= {*maps}}


@dataclass(frozen=True)
class Images:
    """Images of a data set, by name, with the values that a run was trained on."""

    dataset: Any
    place: str
    names: tuple[str, ...]
    predictor: Predictor

    def stored(self, name: str) -> Sample:
        """An image as the data set has it; UserError with the place where its labels are no classes of the run."""
        try:
            return build.checked_labels(self.dataset.read(name), len(self.predictor.classes))
        except UserError as error:
            raise UserError(*(f"{self.place}: {fault}" for fault in error.faults)) from None

    def seen(self, sample: Sample) -> Sample:
        """A stored image with the values that training would have seen."""
        return replace(sample, image=self.predictor.rescaled(sample.image, self.dataset.normalization))

    def __iter__(self) -> Iterator[Sample]:
        return (self.seen(self.stored(name)) for name in self.names)


def digest(sample: Sample, stored: Mapping[str, Any] | None) -> str:
    """The SHA-256 of an image as it was recorded and of its labels, the same for a normalised copy of whole numbers."""
    image = sample.image
    if stored:
        image = build.rescaled(image.double(), stored, None).round().float() + 0.0  # no minus before a zero
    found = hashlib.sha256(f"{tuple(image.shape)} {tuple(sample.labels.shape)}".encode())
    found.update(image.contiguous().numpy().tobytes())
    found.update(sample.labels.to(torch.int16).contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Measured:
    """Scores by metric and counts of images, whose digests stand by name in the order seen."""

    classes: tuple[str, ...]
    images: dict[str, str]
    scores: dict[str, Scores]
    counted: dict[str, Scores]
    higher_is_better: dict[str, bool]

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Pixels of all images by true and predicted class, (K, K)."""
        return np.asarray(self.counted[PIXELS].counts.sum(dim=0).reshape(len(self.classes), -1).numpy())


def measure(
    images: Images,
    metrics: Mapping[str, PerImageMetric],
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Measured:
    """What a model gets on whole images."""
    predictor = images.predictor
    classes, dataset = len(predictor.classes), images.dataset
    counting: dict[str, PerImageMetric] = {PIXELS: _Pixels(classes), CELLS: _Cells(classes)}
    if "instances" in dataset.maps:
        counting["instances"] = _Instances(classes)
    digests: dict[str, str] = {}

    def samples() -> Iterator[Sample]:
        for name in progress(images.names):
            sample = images.stored(name)
            digests[name] = digest(sample, dataset.normalization)
            yield images.seen(sample)

    def answer(sample: Sample) -> Tensor:
        return most_likely(predictor.logits(sample))

    found = score(answer, samples(), {**metrics, **counting}, predictor.device)
    better = {name: metric.higher_is_better for name, metric in metrics.items()}
    scores, counted = ({name: found[name] for name in some} for some in (metrics, counting))
    return Measured(predictor.classes, digests, scores, counted, better)


def rows(measured: Measured) -> list[dict[str, Any]]:
    """A row an image and class: pixels, shares and cells; a further metric without classes has one value an image.

    Accuracy is that of the class against all others. Cells are connected regions, of all classes but the first.
    """
    return [
        {"image": image, "class": name, **_row(measured, index, label)}
        for index, image in enumerate(measured.images)
        for label, name in enumerate(measured.classes)
    ]


def _row(measured: Measured, index: int, label: int) -> dict[str, Any]:
    classes = len(measured.classes)
    table = measured.counted[PIXELS].counts[index].reshape(classes, classes)
    hits, true, predicted, every = (
        int(n) for n in (table[label, label], table[label].sum(), table[:, label].sum(), table.sum())
    )
    pixels = {
        "true_positives": hits,
        "false_positives": predicted - hits,
        "false_negatives": true - hits,
        "true_negatives": every - true - predicted + hits,
    }
    accuracy = (pixels["true_positives"] + pixels["true_negatives"]) / every if every else math.nan
    others = {name: _score(measured, name, index, label) for name in measured.scores if name != "accuracy"}
    return {**pixels, "accuracy": accuracy, **others, **_cells(measured, index, label)}


def _score(measured: Measured, metric: str, index: int, label: int) -> float:
    by_class = rows_of(measured.scores[metric], measured.classes)
    return float(by_class["all" if "all" in by_class else measured.classes[label]][index])


def _cells(measured: Measured, index: int, label: int) -> dict[str, Any]:
    classes = len(measured.classes)
    places = {"cells_true": (CELLS, label), "cells_predicted": (CELLS, classes + label)}
    if "instances" in measured.counted:
        places["instances_true"] = ("instances", label)
    return {
        name: int(measured.counted[kind].counts[index][place]) if label else ""
        for name, (kind, place) in places.items()
    }


def cells(measured: Measured) -> dict[str, dict[str, int]]:
    """Cells of all images in truth and prediction, by class; of the first class there are none."""
    found = {name: counted.counts.sum(dim=0) for name, counted in measured.counted.items()}
    classes = len(measured.classes)
    by_class = {}
    for label, name in list(enumerate(measured.classes))[1:]:
        by_class[name] = {"true": int(found[CELLS][label]), "predicted": int(found[CELLS][classes + label])}
        if "instances" in found:
            by_class[name]["instances"] = int(found["instances"][label])
    return by_class


def per_image(measured: Measured) -> PerImage:
    """The scores of each image as JSON holds them."""
    return {
        metric: {
            name: [None if math.isnan(value) else value for value in values.tolist()]
            for name, values in rows_of(found, measured.classes).items()
        }
        for metric, found in measured.scores.items()
    }


def worst(measured: Measured) -> dict[str, dict[str, dict[str, Any] | None]]:
    """The image with the worst score by metric and class, the first by name of those alike; nothing where none has."""
    return {
        metric: {
            name: _worst(values, list(measured.images), 1 if measured.higher_is_better[metric] else -1)
            for name, values in by_class.items()
        }
        for metric, by_class in per_image(measured).items()
    }


def _worst(values: Sequence[float | None], names: Sequence[str], sign: int) -> dict[str, Any] | None:
    pairs = [(sign * value, name) for name, value in zip(names, values, strict=True) if value is not None]
    return {"image": min(pairs)[1], "score": sign * min(pairs)[0]} if pairs else None


def summary(measured: Measured) -> Summary:
    """Means with intervals beside pooled scores."""
    return summarise(measured.scores, measured.classes)


def baseline_summaries(
    answers: Mapping[str, baselines.Answer], images: Images, metrics: Mapping[str, PerImageMetric]
) -> dict[str, Summary]:
    """What answers without learning get on the same images, by name."""
    cpu = torch.device("cpu")
    found = {name: score(_given(answer), images, metrics, cpu) for name, answer in answers.items()}
    return {name: summarise(scores, images.predictor.classes) for name, scores in found.items()}


def _given(answer: baselines.Answer) -> Callable[[Sample], Tensor]:
    return lambda sample: answer(sample.image)


@dataclass(frozen=True)
class Evaluation:
    """Everything that an evaluation says, as plain values: `evaluation.json`.

    `images` are digests by name; `trained_on` and `selected_on` name those of them that the weights were fitted to or
    the checkpoint was chosen by, and are nothing where nobody can tell.
    """

    checkpoint: Which
    step: int
    checkpoint_digest: str
    data: str
    path: str | None
    data_digest: str | None
    own_data: bool
    split: str
    pixel_um: float | None
    classes: list[str]
    boundary_tolerance_px: float
    images: dict[str, str]
    trained_on: list[str] | None
    selected_on: list[str] | None
    summary: Summary
    worst: dict[str, dict[str, dict[str, Any] | None]]
    baselines: dict[str, Summary]
    confusion: list[list[int]]
    cells: dict[str, dict[str, int]]
    per_image: PerImage
    notes: list[str]
    environment: dict[str, Any]


def write(folder: Path, evaluation: Evaluation, measured: Measured) -> None:
    """Write an evaluation's files into a folder, which a reader sees as it was or as it is now, and whole."""
    with files.replacing(folder) as temporary:
        files.write_text(temporary / PER_IMAGE, as_csv(rows(measured)))
        files.write_text(temporary / FIGURES, json.dumps(asdict(evaluation), indent=1, allow_nan=False))


def read(folder: Path) -> Evaluation | None:
    """What an evaluation wrote; nothing where there is none, or one of another version."""
    try:
        return Evaluation(**json.loads((folder / FIGURES).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def tables(evaluation: Evaluation) -> list[Table]:
    """The scores beside the baselines, and the worst images, for people."""
    scores = final_table(title(evaluation), evaluation.summary, None, evaluation.baselines)
    lowest = Table(title="worst images", title_justify="left", title_style="bold")
    for heading in ("metric", "class", "image"):
        lowest.add_column(heading)
    lowest.add_column("score", justify="right")
    for metric, by_class in evaluation.worst.items():
        for name, found in by_class.items():
            if found:
                lowest.add_row(metric, escape(name), escape(found["image"]), format_score(found["score"]))
        lowest.add_section()
    return [scores, lowest]


def title(evaluation: Evaluation) -> str:
    """What was evaluated on what, and what those images had to do with the weights."""
    count = len(evaluation.images)
    images = f"{count} image{'s' if count > 1 else ''} of {escape(evaluation.data)} ({evaluation.split})"
    known = [
        f"{verb} on {'these images' if len(names) == count else f'{len(names)} of them'}"
        for verb, names in (("trained", evaluation.trained_on), ("selected", evaluation.selected_on))
        if names
    ]
    return ", ".join([f"{images}; {evaluation.checkpoint} checkpoint (step {evaluation.step})", *known])


def sentences(evaluation: Evaluation) -> list[str]:
    """What the tables leave out: how many cells were counted."""
    return [
        f"{name}: {found['true']} connected regions in the truth"
        + (f" ({found['instances']} instances)" if "instances" in found else "")
        + f", {found['predicted']} in the prediction"
        for name, found in evaluation.cells.items()
    ]
