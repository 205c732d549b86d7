"""Scores and counts of a model, and of baselines, on whole images.

All derive from integer counts of each image, so that they do not depend on the order of images or on who counted them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.config.experiment import Experiment
from yeastexp.evaluation.source import Images, image_digest, map_digests
from yeastexp.metrics.baselines import Baseline
from yeastexp.metrics.counts import InstanceCounts, PixelCounts, PredictedInstanceCounts, RegionCounts
from yeastexp.metrics.instances import InstanceMetric
from yeastexp.metrics.pixels import ALL, BoundaryF1, PerImageMetric, Scores
from yeastexp.metrics.summary import Summary, rows_of, summarise
from yeastexp.registry import KINDS
from yeastexp.sample import Sample
from yeastexp.system import processes
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.tasks import telling_apart
from yeastexp.tasks.telling_apart import TellsInstances
from yeastexp.training import build
from yeastexp.training.validation import baseline_scores, score, scores_of_all

TOLERANCE_PX = 2.0
"""The tolerance of the boundary F1, unless the command or the experiment sets another."""

STANDARD = ("accuracy", "iou", "dice", "boundary_f1")
"""The metrics of every evaluation, unless the task has its own."""

PIXELS, REGIONS, INSTANCES, PREDICTED = "pixels", "cells", "instances", "predicted instances"

PerImage = dict[str, dict[str, list[float | None]]]
"""Lists of one score an image, by metric and row name; None where an image has no score."""


class WithheldMetric(PerImageMetric):
    """A stand-in for a metric with stored scores whose plugin is not executed: which scores are better is unknown."""

    higher_is_better = True
    """Only for the order of tables: code that names a winner has to check for this class first."""


def tolerance_of(experiment: Experiment) -> float:
    """The tolerance of an experiment's own boundary F1 in pixels, or `TOLERANCE_PX`."""
    options = (part.options.get("tolerance_px") for part in experiment.metrics if part.name == "boundary_f1")
    return next((float(tolerance) for tolerance in options if tolerance is not None), TOLERANCE_PX)


def standard_of(experiment: Experiment) -> tuple[str, ...]:
    """The metrics of every evaluation by name: the task's own, else (or if its plugin is not loaded) `STANDARD`."""
    known = experiment.task.part.name in KINDS["task"]
    return (telling_apart.metrics_of(build.build_task(experiment)) if known else ()) or STANDARD


def metrics_of(
    experiment: Experiment, tolerance_px: float, maps: Collection[str] | None = None, ignore_border: int | None = None
) -> dict[str, PerImageMetric]:
    """The metrics of every evaluation, then those of the experiment; only those that `maps`, if given, suffice for.

    A metric that is both has the options of the experiment, except that `tolerance_px` and, if given, `ignore_border`
    take precedence.
    """
    classes, own = len(experiment.task.classes), build.build_metrics(experiment)
    metrics: dict[str, PerImageMetric] = {}
    # The boundary F1 is made anew even if the experiment has one: evaluations of several runs are compared, and the
    # tolerance is part of what is compared.
    for name in (*standard_of(experiment), *own):
        tolerant = BoundaryF1(classes, tolerance_px) if name == "boundary_f1" else None
        metrics[name] = tolerant or own.get(name) or KINDS["metric"][name](classes)
    for metric in metrics.values():
        if ignore_border is not None and isinstance(metric, InstanceMetric):
            metric.ignore_border = ignore_border
    return {name: metric for name, metric in metrics.items() if maps is None or metric.has_maps(maps)}


def metric_of(experiment: Experiment, name: str) -> PerImageMetric:
    """The metric of a name, standard or of the experiment; a `WithheldMetric` if its plugin is not executed."""
    return _known_metrics(experiment).get(name) or WithheldMetric(len(experiment.task.classes))


def approximate_in(experiment: Experiment) -> tuple[str, ...]:
    """The names of the metrics of cells that the task only approximates; none if its plugin is withheld."""
    if experiment.task.part.name not in KINDS["task"]:
        return ()
    return telling_apart.approximate_in(build.build_task(experiment), _known_metrics(experiment))


def scores_cells(experiment: Experiment) -> bool:
    """Whether any metric of an evaluation scores predicted cells, even if the task only approximates these."""
    return any("instances" in metric.predicted for metric in _known_metrics(experiment).values())


def _known_metrics(experiment: Experiment) -> dict[str, PerImageMetric]:
    """The metrics of every evaluation and of the experiment, but for those whose plugin is withheld."""
    known = tuple(part for part in experiment.metrics if part.name in KINDS["metric"])
    return metrics_of(replace(experiment, metrics=known), tolerance_of(experiment))


@dataclass(frozen=True)
class Measured:
    """The scores and counts of a set of images."""

    classes: tuple[str, ...]
    images: dict[str, str]
    """The digests of the images by name, in the order of the rows of all `Scores`."""
    scores: dict[str, Scores]
    """By the names of metrics."""
    counts: dict[str, Scores]
    """By `PIXELS`, `REGIONS`, `INSTANCES` and `PREDICTED`, as far as the data and the task have them."""
    metrics: Mapping[str, PerImageMetric]
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """By image: the digests of the maps, such as `instances`, that it was scored with."""

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Pixels of all images by labelled and predicted class, (K, K)."""
        return np.asarray(self.counts[PIXELS].counts.sum(dim=0).reshape(len(self.classes), -1).numpy())

    @property
    def summary(self) -> Summary:
        """Means with intervals beside pooled scores."""
        return summarise(self.scores, self.classes)

    @property
    def per_image(self) -> PerImage:
        """The scores of each image in a form for JSON, with None for NaN."""
        return {
            metric: {
                name: [None if math.isnan(value) else value for value in values.tolist()]
                for name, values in rows_of(scores, self.classes).items()
            }
            for metric, scores in self.scores.items()
        }

    @property
    def worst(self) -> dict[str, dict[str, dict[str, Any] | None]]:
        """The image with the worst score, by metric and row name; the first by name of equals, None without a score.

        Undirected parts are left out. Of parts that count errors, an image without errors cannot be the worst.
        """
        return {
            metric: {
                name: _worst(
                    [None if name in self.metrics[metric].numbers and not value else value for value in values],
                    list(self.images),
                    1 if self.metrics[metric].higher_is_better else -1,
                )
                for name, values in by_class.items()
                if name not in self.metrics[metric].undirected
            }
            for metric, by_class in self.per_image.items()
        }

    @property
    def cells(self) -> dict[str, dict[str, int]]:
        """The numbers of cells in ground truth and prediction, by class without the first, summed over images."""
        totals = {kind: scores.counts.sum(dim=0) for kind, scores in self.counts.items()}
        return {
            name: {key: int(totals[kind][place]) for key, (kind, place) in self._cell_places(label).items()}
            for label, name in list(enumerate(self.classes))[1:]
        }

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `per_image.csv`, one for each image and class: counts of pixels, scores, and counts of cells.

        Accuracy is that of the class against all others. A metric without classes repeats its value in the rows of all
        classes; its parts are columns after it. Every class but the first has counts of cells if the task predicts
        instances, else of connected regions.
        """
        return [
            {"image": image, "class": name, **self._row(index, label)}
            for index, image in enumerate(self.images)
            for label, name in enumerate(self.classes)
        ]

    def _row(self, index: int, label: int) -> dict[str, Any]:
        classes = len(self.classes)
        table = self.counts[PIXELS].counts[index].reshape(classes, classes)
        hits, true, predicted, total = (
            int(n) for n in (table[label, label], table[label].sum(), table[:, label].sum(), table.sum())
        )
        pixels = {
            "true_positives": hits,
            "false_positives": predicted - hits,
            "false_negatives": true - hits,
            "true_negatives": total - true - predicted + hits,
        }
        accuracy = (pixels["true_positives"] + pixels["true_negatives"]) / total if total else math.nan
        others = {
            column: value
            for name in self.scores
            if name != "accuracy"
            for column, value in self._columns(name, index, label).items()
        }
        counted = "cells" if PREDICTED in self.counts else "regions"
        columns = {"true": f"{counted}_true", "predicted": f"{counted}_predicted", INSTANCES: "instances_true"}
        cells = {
            columns[key]: int(self.counts[kind].counts[index][place]) if label else ""
            for key, (kind, place) in self._cell_places(label).items()
        }
        return {**pixels, "accuracy": accuracy, **others, **cells}

    def _columns(self, metric: str, index: int, label: int) -> dict[str, float | int]:
        """The columns of a metric: the score of the class, or that of the image followed by its parts."""
        scores = self.scores[metric]
        by_class = rows_of(scores, self.classes)
        columns: dict[str, float | int] = {
            metric: float(by_class[ALL if ALL in by_class else self.classes[label]][index])
        }
        for part in scores.parts:
            value = float(by_class[part][index])
            columns[f"{metric}_{part}"] = (
                int(value) if part in self.metrics[metric].numbers and value.is_integer() else value
            )
        return columns

    def _cell_places(self, label: int) -> dict[str, tuple[str, int]]:
        """Where the numbers of cells of a class stand: a key of `counts` and the index in its vector, by column."""
        if PREDICTED in self.counts:
            true = {"true": (INSTANCES, label)} if INSTANCES in self.counts else {}
            return true | {"predicted": (PREDICTED, label)}
        places = {"true": (REGIONS, label), "predicted": (REGIONS, len(self.classes) + label)}
        return places | ({INSTANCES: (INSTANCES, label)} if INSTANCES in self.counts else {})


def counts_of(per_image: PerImage) -> tuple[list[float], list[float]] | None:
    """The numbers of true and of found cells of each image, NaN without labels; None if cells were not counted."""
    if "count" not in per_image or not {"true", "found"} <= per_image["count"].keys():
        return None
    true, found = ([math.nan if n is None else n for n in per_image["count"][part]] for part in ("true", "found"))
    return true, found


def _worst(values: Sequence[float | None], names: Sequence[str], sign: int) -> dict[str, Any] | None:
    """The image with the lowest score, or with `sign` -1 the highest; None if no image has a score."""
    # Pairs are compared by name next, so that of equals the choice does not depend on the order of images.
    pairs = [(sign * value, name) for name, value in zip(names, values, strict=True) if value is not None]
    return {"image": min(pairs)[1], "score": sign * min(pairs)[0]} if pairs else None


def measure(
    images: Images,
    metrics: Mapping[str, PerImageMetric],
    progress: ProgressBar[str] = iter,
) -> Measured:
    """Score a model on whole images; each of several processes predicts its share, and all return the whole."""
    predictor, among = images.predictor, processes.current()
    classes, dataset = len(predictor.classes), images.dataset
    counting: dict[str, PerImageMetric] = {PIXELS: PixelCounts(classes)}
    if isinstance(predictor.task, TellsInstances):
        counting[PREDICTED] = PredictedInstanceCounts(classes)
    else:
        counting[REGIONS] = RegionCounts(classes)
    if "instances" in dataset.maps:
        counting[INSTANCES] = InstanceCounts(classes)
    digests: dict[str, str] = {}
    maps: dict[str, dict[str, str]] = {}

    # Of the stored values: a digest tells whether two evaluations saw the same image, whatever each run made of it.
    def samples() -> Iterator[Sample]:
        # Digests are taken while `score` draws the samples, so that no image is read twice or kept.
        for name in progress(among.share(images.names)):
            sample = images.stored(name)
            digests[name] = image_digest(sample, dataset.normalization)
            maps[name] = map_digests(sample, every.values())
            yield images.rescaled(sample)

    # The counts that tables need are gathered as if they were metrics: one prediction of each image serves both.
    every = {**metrics, **counting}
    both = score(predictor.predict, samples(), every, predictor.device)
    both, digests = scores_of_all(both, list(digests), every, among), among.merged(digests)
    scores, counts = ({name: both[name] for name in names} for names in (metrics, counting))
    return Measured(predictor.classes, digests, scores, counts, metrics, among.merged(maps))


def measure_baselines(
    baselines: Mapping[str, Baseline], images: Images, metrics: Mapping[str, PerImageMetric]
) -> dict[str, Summary]:
    """The summaries of baselines on the same images, by name, with those metrics that can score baselines."""
    task, classes, among = images.predictor.task, images.predictor.classes, processes.current()
    # Processes share the images as in `measure`, so that the rows of both are gathered in the same order.
    share = replace(images, names=tuple(among.share(images.names)))
    return {
        name: summarise(
            scores_of_all(baseline_scores(baseline, share, metrics, task), share.names, metrics, among), classes
        )
        for name, baseline in baselines.items()
    }
