"""The files of a run, finished or not, read as they are; nothing is recomputed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from yeastexp.config import diff
from yeastexp.config.experiment import Experiment
from yeastexp.errors import UserError
from yeastexp.evaluation import record
from yeastexp.evaluation.measure import WithheldMetric, approximate_in, metric_of, standard_of
from yeastexp.evaluation.record import Evaluation
from yeastexp.metrics.pixels import ALL, MEAN, PerImageMetric
from yeastexp.metrics.summary import Summary, rows_of, summarise
from yeastexp.training import checkpoints, inputs
from yeastexp.training.progress import Validation
from yeastexp.training.run_directory import PerImage, RunDirectory

ScoreKey = tuple[str, str]
"""Metric and class."""

ImageScores = PerImage

Content = TypeVar("Content")

Epoch = dict[str, float | None]
"""A row of `metrics.csv`."""


@dataclass(frozen=True)
class BestCheckpoint:
    """The step of the best checkpoint so far, and the validation that selected it."""

    step: int
    validation: Validation
    experiment: Mapping[str, Any] | None
    """The identity of the experiment; None in checkpoints of an earlier version, which kept none."""


@dataclass(frozen=True)
class RunFiles:
    """A run directory: its experiment and environment, and its result if it has finished."""

    path: Path
    experiment: Experiment
    environment: dict[str, Any]
    result: dict[str, Any] | None
    epochs: list[Epoch] = field(default_factory=list)
    per_image: dict[str, ImageScores] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    """A sentence on each file that cannot be read; the page is written without it."""

    @property
    def label(self) -> str:
        """The last two folders of the run's path."""
        return last_two(self.path)

    @property
    def directory(self) -> RunDirectory:
        """The run directory, which owns the names in it."""
        return RunDirectory(self.path)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.experiment.task.classes

    @cached_property
    def log(self) -> list[str]:
        """The lines of `log.txt`."""
        try:
            return self.directory.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    @cached_property
    def best(self) -> BestCheckpoint | None:
        """The best checkpoint so far; None if there is no intact one."""
        try:
            state = checkpoints.load(self.directory.checkpoint("best"))
            validation = Validation.of(state["validations"]["best"])
        except (UserError, OSError):
            return None
        return BestCheckpoint(state["step"], validation, state.get("experiment")) if validation else None

    @cached_property
    def edits(self) -> diff.Rows:
        """The keys of the experiment's file that were edited since the best checkpoint."""
        was = self.best.experiment if self.best and not self.experiment.withheld else None
        return diff.edits(was, self.experiment, self.directory.experiment) if was else {}

    @cached_property
    def notes(self) -> list[str]:
        """A sentence on each input that is no longer as the run read it."""
        edited = [f"{self.directory.experiment}: {diff.phrase(self.edits)}"] if self.edits else []
        kinds = ("folds", "plugins", "init_from") if self.experiment.withheld else inputs.HOLDS
        return [
            *self.experiment.withheld,
            *edited,
            *inputs.changed(self.environment, inputs.inputs_of(self.experiment), kinds),
        ]

    @property
    def best_step(self) -> int:
        """The step of the best checkpoint; 0 before the first validation."""
        return int(self.result["best"]["step"]) if self.result else self.best.step if self.best else 0

    @cached_property
    def scores(self) -> dict[str, ImageScores]:
        """The scores of each image by split: those that the run wrote, else those of its best checkpoint so far."""
        if self.result and self.per_image:
            return self.per_image
        if self.best is None:
            return {}
        names = list(self.best.validation.losses)
        return {
            "val": {
                (metric, name): {
                    image: None if math.isnan(value) else float(value)
                    for image, value in zip(names, values, strict=True)
                }
                for metric, scores in self.best.validation.scores.items()
                for name, values in rows_of(scores, self.classes).items()
            }
        }

    @cached_property
    def summary(self) -> Summary:
        """Means with intervals of the best checkpoint; empty before the first validation."""
        if self.result:
            summary: Summary = self.result["val"]["best"]
            return summary
        return summarise(self.best.validation.scores, self.classes) if self.best else {}

    @property
    def approximate(self) -> tuple[str, ...]:
        """The metrics of cells that the task only approximates; none if its plugin is not executed."""
        return approximate_in(self.experiment)

    @property
    def baselines(self) -> dict[str, Summary]:
        """The summaries of the baselines on the same images."""
        return dict(self.result["baselines"]) if self.result else {}

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """The records that `evaluate` wrote, by name of the folder."""
        return list(record.read_all(self.directory).values())

    def points(self, column: str) -> list[tuple[float, float]]:
        """(step, value) of every epoch that has a value in a column of `metrics.csv`."""
        rows = ((row["step"], row.get(column)) for row in self.epochs)
        return [(step, value) for step, value in rows if step is not None and value is not None]


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return RunDirectory(path).is_run and RunDirectory(path).environment.is_file()


def read(path: Path) -> RunFiles:
    """Read a run directory; tables and results that cannot be read are left out and noted in `damage`.

    Raises UserError if the folder is not a run directory, or lacks its experiment or environment.
    """
    directory = RunDirectory.existing(path)
    damage: list[str] = []

    def readable(read: Callable[[], Content]) -> Content | None:
        try:
            return read()
        except UserError as error:
            damage.append(str(error))
            return None

    experiment, environment = directory.load(data=False, execute=False), directory.read_environment()
    result = readable(lambda: _result_of(directory, experiment)) if directory.is_finished else None
    epochs = readable(directory.read_metrics) or []
    per_image = (readable(lambda: _scores_of(directory, result)) if result else None) or {}
    return RunFiles(path, experiment, environment, result, epochs, per_image, damage)


def _result_of(directory: RunDirectory, experiment: Experiment) -> dict[str, Any] | None:
    """The result of a run. Raises UserError if the file is damaged, or of another experiment."""
    result = directory.read_result()
    # The rows of the scores have to be those of the experiment's metrics: pages index one by the other.
    metrics, rows = _known_metrics(experiment), ({*experiment.task.classes, MEAN}, {ALL})
    for metric, by_class in result["val"]["best"].items():
        kind = metric_of(experiment, metric)
        withheld = isinstance(kind, WithheldMetric)  # then nothing tells which parts it has
        if metric not in metrics or not (withheld or set(by_class) in (*rows, {ALL, *kind.parts})):
            raise UserError(
                f"{directory.result}: its scores of '{metric}' are of another experiment; remove it, and 'resume "
                f"{directory}' writes it anew"
            )
    return result


def _known_metrics(experiment: Experiment) -> set[str]:
    return {*standard_of(experiment), *(part.name for part in experiment.metrics)}


def _scores_of(directory: RunDirectory, result: Mapping[str, Any]) -> dict[str, ImageScores]:
    """The scores of each image. Raises UserError if the file is damaged, or of another run."""
    scores = directory.read_per_image()
    known = {(metric, name) for metric, by_class in result["val"]["best"].items() for name in by_class}
    for split, by_key in scores.items():
        if odd := known ^ by_key.keys():
            metric, name = min(odd)
            fault = f"'{metric}' of '{name}' of {split} images is in one of it and {directory.result.name} alone"
            raise UserError(f"{directory.per_image}: {fault}; bring back the one that the run wrote, or remove it")
    return scores


def score_column(metric: str, name: str) -> str:
    """The column of `metrics.csv` that holds a row of a metric."""
    return f"val/{metric}" if name == "all" else f"val/{metric}/{name}"


def headline_key(summary: Summary, loaded: Experiment) -> ScoreKey:
    """The metric and class that a page begins with: those that select the checkpoint, if they were scored."""
    metric = loaded.monitor if loaded.monitor in summary else next(iter(summary))
    return metric, metric_of(loaded, metric).headline(summary[metric], loaded.task.classes)


def ranking_key(scores: ImageScores, monitor: str) -> ScoreKey:
    """The metric and row that images are ranked by: those that select the checkpoint, averaged over classes."""
    metrics = [metric for metric, _ in scores]
    metric = monitor if monitor in metrics else metrics[0]
    return metric, "all" if (metric, "all") in scores else MEAN


def first_of(metric: PerImageMetric) -> str:
    """The word for the first image of `worst_first`: 'worst', or 'lowest' if the metric's direction is unknown."""
    return "lowest" if isinstance(metric, WithheldMetric) else "worst"


def worst_first(scores: Mapping[str, float | None], higher_is_better: bool = True) -> list[str]:
    """The images from the worst to the best, followed by those without a score."""
    sign = 1 if higher_is_better else -1
    return sorted(scores, key=lambda image: (scores[image] is None, sign * (scores[image] or 0.0)))


def representatives(scores: Mapping[str, float | None], higher_is_better: bool = True) -> dict[str, str]:
    """The worst, the median and the best image by rank; fewer if fewer images have a score."""
    ordered = [name for name in worst_first(scores, higher_is_better) if scores[name] is not None]
    if len(ordered) < 3:
        return dict(zip(("worst", "best") if len(ordered) == 2 else ("only",), ordered, strict=False))
    return {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]}


def last_two(path: Path) -> str:
    """Return the last two folders of a path."""
    place = path.resolve()
    return f"{place.parent.name}/{place.name}"
