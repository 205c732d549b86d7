"""The study of accuracy and mean IoU: both scores of predictions with known errors, by the share of foreground."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table
from torch import Tensor

from yeastexp.contracts import Prediction
from yeastexp.drawing import plots
from yeastexp.exercise import degradations, discs, writing
from yeastexp.metrics.pixels import MEAN, Accuracy, DeadCellFalsePositives, IoU
from yeastexp.metrics.summary import Summary, summarise
from yeastexp.sample import Sample
from yeastexp.training.validation import score

CLASSES = ("background", "cell")

Aggregation = Literal["per_image", "pooled"]
AGGREGATIONS: tuple[Aggregation, ...] = ("per_image", "pooled")

FOREGROUND = (0.02, 0.05, 0.1, 0.25, 0.5)
"""The nominal foreground fraction of each set of images."""

FACTORS = (0.5, 1.1, 1.1, 1.1, 1.1, 1.1)
"""The foreground of each image of a set, relative to the nominal one: the first is sparser, so that pooling weights it
less."""

SMALL_PX = 16
"""The diameter below which cells are buds, or cut by the image border."""

LITTLE, MUCH = 2, 6
"""The distances in pixels by which outlines are moved."""

ALL_BACKGROUND = "all background"
DEAD_AS_LIVE = "dead taken as live"
SPARSEST_MISSED = "one image missed"


@dataclass(frozen=True)
class Degradation:
    """A way to make a prediction with a known error from the ground truth, and the look of its points in the plot."""

    name: str
    predict: Callable[[Sample], Tensor]
    look: int
    hollow: bool = False


DEGRADATIONS = (
    Degradation(ALL_BACKGROUND, degradations.all_background, 0),
    Degradation(f"shrunk by {LITTLE} px", partial(degradations.shrunken, pixels=LITTLE), 1, hollow=True),
    Degradation(f"shrunk by {MUCH} px", partial(degradations.shrunken, pixels=MUCH), 1),
    Degradation(f"grown by {LITTLE} px", partial(degradations.grown, pixels=LITTLE), 2, hollow=True),
    Degradation(f"grown by {MUCH} px", partial(degradations.grown, pixels=MUCH), 2),
    Degradation(f"shifted by {LITTLE} px", partial(degradations.shifted, pixels=LITTLE), 3, hollow=True),
    Degradation(f"shifted by {MUCH} px", partial(degradations.shifted, pixels=MUCH), 3),
    Degradation("small cells missed", partial(degradations.without_small, diameter_px=SMALL_PX), 4, hollow=True),
    Degradation(SPARSEST_MISSED, partial(degradations.without_image, name="field_0"), 4),
    Degradation(DEAD_AS_LIVE, degradations.dead_as_live, 5),
)


@dataclass(frozen=True)
class SetScores:
    """The scores of one degradation on one set of images, with the measured foreground fraction of the set."""

    degradation: Degradation
    foreground: float
    scores: Summary

    def accuracy(self, aggregation: Aggregation = "per_image") -> float:
        """The accuracy, per image or pooled."""
        return _number(self.scores["accuracy"]["all"][aggregation])

    def iou(self, name: str = MEAN, aggregation: Aggregation = "per_image") -> float:
        """The IoU of a class, or the mean of both classes."""
        return _number(self.scores["iou"][name][aggregation])

    @property
    def dead_fraction(self) -> float:
        """The fraction of all dead cells that is predicted as cells."""
        return _number(self.scores["dead_cell_false_positives"]["all"]["pooled"])


@dataclass(frozen=True)
class MetricsStudy:
    """The scores of all degradations on all sets of images, by degradation, then from the sparsest set."""

    rows: tuple[SetScores, ...]

    def of(self, name: str) -> list[SetScores]:
        """The rows of one degradation, from the sparsest set of images."""
        return [row for row in self.rows if row.degradation.name == name]

    def at(self, foreground: float) -> list[SetScores]:
        """The rows of one set of images."""
        return [row for row in self.rows if row.foreground == foreground]

    @property
    def names(self) -> list[str]:
        """The degradations, in order."""
        return list(dict.fromkeys(row.degradation.name for row in self.rows))

    @property
    def foregrounds(self) -> list[float]:
        """The measured foreground fractions, in order."""
        return list(dict.fromkeys(row.foreground for row in self.rows))


def study() -> MetricsStudy:
    """Score all degradations on all sets of images."""
    sets = [images(foreground) for foreground in FOREGROUND]
    return MetricsStudy(tuple(_scored(degradation, samples) for degradation in DEGRADATIONS for samples in sets))


def images(foreground: float) -> list[Sample]:
    """A set of images with about this foreground fraction, the sparsest first."""
    return [discs.field(foreground * factor, number) for number, factor in enumerate(FACTORS)]


def _scored(degradation: Degradation, samples: Sequence[Sample]) -> SetScores:
    metrics = {
        "accuracy": Accuracy(len(CLASSES)),
        "iou": IoU(len(CLASSES)),
        "dead_cell_false_positives": DeadCellFalsePositives(len(CLASSES)),
    }
    scores = score(lambda sample: Prediction(degradation.predict(sample)), samples, metrics, torch.device("cpu"))
    foreground = sum(int((sample.labels > 0).sum()) for sample in samples)
    pixels = sum(sample.labels.numel() for sample in samples)
    return SetScores(degradation, foreground / pixels, summarise(scores, CLASSES))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def as_json(result: MetricsStudy) -> dict[str, Any]:
    """All scores as plain values for scripts."""
    rows = [{"prediction": row.degradation.name, "foreground": row.foreground, **row.scores} for row in result.rows]
    return {"images_a_set": len(FACTORS), "size": discs.SIZE, "rows": rows, "findings": findings(result)}


def table(result: MetricsStudy) -> Table:
    """The table of all scores: a group of rows for each degradation, a row for each set of images."""
    title = f"sets of {len(FACTORS)} images of {discs.SIZE} × {discs.SIZE} pixels; per image, and pooled over pixels"
    caption = f"small cells: diameter below {SMALL_PX} px; one image: the sparsest of each set"
    scores = ("\naccuracy", "mean\nIoU", "IoU\nbackgr.", "IoU\ncells")
    headings = [heading for text in scores for heading in (f"{text}\nimage", "\n\npooled")]
    scores_table = writing.results_table(
        title, caption, "\n\nprediction", "\nfore-\nground", *headings, "dead\ncells\ntaken"
    )
    for name in result.names:
        for index, row in enumerate(result.of(name)):
            scores_table.add_row("" if index else name, f"{row.foreground:.1%}", *_cells(row))
        scores_table.add_section()
    return scores_table


def _cells(row: SetScores) -> Iterator[str]:
    yield from (f"{row.accuracy(aggregation):.3f}" for aggregation in AGGREGATIONS)
    for name in (MEAN, *CLASSES):
        yield from (f"{row.iou(name, aggregation):.3f}" for aggregation in AGGREGATIONS)
    yield f"{row.dead_fraction:.0%}"


def figure(result: MetricsStudy, aggregation: Aggregation = "per_image") -> plots.Figure:
    """Accuracy against mean IoU and against the IoU of each class."""
    classes = {"mean IoU": MEAN, **{f"IoU of {name}": name for name in CLASSES}}
    groups = [result.of(name) for name in result.names]
    panels = {title: [_series(rows, name, aggregation) for rows in groups] for title, name in classes.items()}
    ends = f"{result.foregrounds[0]:.0%}", f"{result.foregrounds[-1]:.0%}"
    return plots.scatter(
        panels,
        x_label=f"accuracy; each line from {ends[0]} to {ends[1]} foreground",
        y_label=f"IoU, {aggregation.replace('_', ' ')}",
        joined=True,
        ends=ends,
    )


def _series(rows: Sequence[SetScores], name: str, aggregation: Aggregation) -> plots.Series:
    degradation = rows[0].degradation
    accuracies, ious = [row.accuracy(aggregation) for row in rows], [row.iou(name, aggregation) for row in rows]
    return plots.Series(degradation.name, accuracies, ious, degradation.look, degradation.hollow)


def findings(result: MetricsStudy) -> list[str]:
    """Sentences on what the scores show."""
    return [
        _nothing_found(result),
        _same_error(result),
        _order(result),
        _by_class(result),
        _dead_cells(result),
        _pooled(result),
        _verdict(result),
    ]


def _nothing_found(result: MetricsStudy) -> str:
    sparse, dense = result.of(ALL_BACKGROUND)[0], result.of(ALL_BACKGROUND)[-1]
    return (
        f"All background finds no cell. Its accuracy is {sparse.accuracy():.1%} on images with "
        f"{sparse.foreground:.1%} foreground and {dense.accuracy():.1%} on images with {dense.foreground:.1%}: it "
        f"measures how empty the images are. Its mean IoU is {sparse.iou():.3f} and {dense.iou():.3f}, half of the "
        f"background's ({sparse.iou('background'):.3f} and {dense.iou('background'):.3f}), because the IoU of the "
        f"cells is {sparse.iou('cell'):.3f}."
    )


def _same_error(result: MetricsStudy) -> str:
    name = f"shrunk by {LITTLE} px"
    sparse, dense = result.of(name)[0], result.of(name)[-1]
    ratio = (1 - dense.accuracy()) / (1 - sparse.accuracy())
    return (
        f"The same error looks smaller if there is less foreground. With all cells {name} the accuracy is "
        f"{sparse.accuracy():.3f} at {sparse.foreground:.1%} foreground and {dense.accuracy():.3f} at "
        f"{dense.foreground:.1%}, where {ratio:.0f} times as many pixels are wrong. The IoU of the cells is "
        f"{sparse.iou('cell'):.3f} and {dense.iou('cell'):.3f}."
    )


def _order(result: MetricsStudy) -> str:
    nothing, *others = result.at(result.foregrounds[0])
    reversed_rows = [row for row in others if row.accuracy() < nothing.accuracy() and row.iou() > nothing.iou()]
    if not reversed_rows:
        return (
            f"At {nothing.foreground:.1%} foreground no prediction with a higher mean IoU has a lower accuracy than "
            f"{ALL_BACKGROUND}."
        )
    listed = "; ".join(f"{row.degradation.name}, {row.accuracy():.3f} and {row.iou():.3f}" for row in reversed_rows)
    return (
        f"The two metrics rank predictions differently. At {nothing.foreground:.1%} foreground {ALL_BACKGROUND} has a "
        f"higher accuracy ({nothing.accuracy():.3f}) and a lower mean IoU ({nothing.iou():.3f}) than: {listed}."
    )


def _by_class(result: MetricsStudy) -> str:
    worst = min(result.at(result.foregrounds[0])[1:], key=lambda row: row.iou("cell"))
    return (
        f"The mean IoU is optimistic as well, since the background is half of it: {worst.degradation.name}, at "
        f"{worst.foreground:.1%} foreground, gets {worst.iou():.3f}, from {worst.iou('background'):.3f} for the "
        f"background and {worst.iou('cell'):.3f} for the cells. Report the IoU of the cells beside it."
    )


def _dead_cells(result: MetricsStudy) -> str:
    wrong = result.of(DEAD_AS_LIVE)[-1]
    others = [row for row in result.at(wrong.foreground) if not row.dead_fraction]
    peer = min(others, key=lambda row: abs(row.iou() - wrong.iou()))
    return (
        f"Neither tells which error was made. At {wrong.foreground:.1%} foreground {DEAD_AS_LIVE} gets an accuracy of "
        f"{wrong.accuracy():.3f} and a mean IoU of {wrong.iou():.3f}, much like {peer.degradation.name} with "
        f"{peer.accuracy():.3f} and {peer.iou():.3f}; dead_cell_false_positives is {wrong.dead_fraction:.0%} and "
        f"{peer.dead_fraction:.0%}."
    )


def _pooled(result: MetricsStudy) -> str:
    row = result.of(SPARSEST_MISSED)[-1]
    return (
        f"Pooled scores hide a failure on a sparse image. With {SPARSEST_MISSED} of {len(FACTORS)}, the sparsest, at "
        f"{row.foreground:.1%} foreground, the IoU of the cells is {row.iou('cell', 'pooled'):.3f} pooled and "
        f"{row.iou('cell'):.3f} per image."
    )


def _verdict(result: MetricsStudy) -> str:
    rows = result.at(result.foregrounds[0])
    values = {
        "accuracy": [row.accuracy() for row in rows],
        "mean IoU": [row.iou() for row in rows],
        "the IoU of the cells": [row.iou("cell") for row in rows],
    }
    ranges = ", ".join(f"{name} {min(scores):.3f} to {max(scores):.3f}" for name, scores in values.items())
    width = {name: max(scores) - min(scores) for name, scores in values.items()}
    less, more = sorted(("accuracy", "mean IoU"), key=lambda name: width[name])
    return (
        f"So the {more} is the more informative of the two. The ranges over the {len(rows)} predictions at "
        f"{rows[0].foreground:.1%} foreground are: {ranges}; that of the {more} is "
        f"{width[more] / width[less]:.0f} times that of the {less}."
    )


def write(result: MetricsStudy, folder: Path) -> list[Path]:
    """Write the scores as JSON and the plots as PNG and SVG into a folder."""
    figures = {"accuracy_and_iou": figure(result), "accuracy_and_iou_pooled": figure(result, "pooled")}
    return writing.write(folder, "accuracy_and_iou", figures, as_json(result))
