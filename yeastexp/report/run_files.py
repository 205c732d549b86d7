"""What a run left behind, read from its files as they are; nothing is computed anew."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from yeastexp.config import experiment
from yeastexp.config.experiment import Experiment
from yeastexp.errors import UserError
from yeastexp.evaluation import record
from yeastexp.evaluation.record import Evaluation
from yeastexp.metrics.summary import MEAN, Summary, rows_of, summarise
from yeastexp.training import checkpoints, run_directory
from yeastexp.training.progress import Validation

METRICS, LOG = "metrics.csv", "log.txt"

Key = tuple[str, str]
"""Metric and class."""

Scores = dict[Key, dict[str, float | None]]
"""By metric and class, the score of each image; nothing where it has none."""

Epoch = dict[str, float | None]
"""A row of `metrics.csv`."""


@dataclass(frozen=True)
class Best:
    """What the best checkpoint so far says of itself: the validation that chose it."""

    step: int
    validation: Validation


@dataclass(frozen=True)
class Remains:
    """A run directory: its experiment and environment, and its result where it is finished."""

    path: Path
    experiment: Experiment
    environment: dict[str, Any]
    result: dict[str, Any] | None
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What people call it: the last two folders of its path."""
        place = self.path.resolve()
        return f"{place.parent.name}/{place.name}"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.experiment.task.classes

    @cached_property
    def log(self) -> list[str]:
        """The lines of `log.txt`."""
        try:
            return (self.path / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    @cached_property
    def best(self) -> Best | None:
        """Of a run that has no result: what its best checkpoint holds, where there is a good one."""
        try:
            state = checkpoints.load(self.path / checkpoints.FOLDER / checkpoints.BEST)
            found = Validation.of(state["validations"]["best"])
        except (UserError, OSError):
            return None
        return Best(state["step"], found) if found else None

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """By split, the scores of each image: those that the run wrote, else those of its best checkpoint."""
        if self.result and (self.path / run_directory.PER_IMAGE).is_file():
            return _per_image(self.path / run_directory.PER_IMAGE)
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
        """Means with intervals of the best checkpoint; empty where nothing was validated yet."""
        if self.result:
            found: Summary = self.result["val"]["best"]
            return found
        return summarise(self.best.validation.scores, self.classes) if self.best else {}

    @property
    def baselines(self) -> dict[str, Summary]:
        """What answers without learning get on the same images."""
        return dict(self.result["baselines"]) if self.result else {}

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """What `evaluate` wrote of it, by name of the folder."""
        folders = sorted((self.path / record.FOLDER).glob(f"*/{record.FIGURES}"))
        return [found for place in folders if (found := record.read(place.parent))]

    def points(self, column: str) -> list[tuple[float, float]]:
        """Step and value of every epoch that has one."""
        rows = ((row["step"], row.get(column)) for row in self.epochs)
        return [(step, value) for step, value in rows if step is not None and value is not None]


def read(path: Path) -> Remains:
    """What a run left; UserError where the folder is none of a run."""
    if not (path / run_directory.EXPERIMENT).is_file() or not (path / run_directory.ENVIRONMENT).is_file():
        raise UserError(f"{path}: no run directory; the last line that 'run' prints is one")
    loaded = experiment.load(path / run_directory.EXPERIMENT, data=False)
    return Remains(
        path, loaded, run_directory.read_environment(path), _json(path / run_directory.RESULT), _epochs(path)
    )


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _epochs(path: Path) -> list[Epoch]:
    place = path / METRICS
    if not place.is_file():
        return []
    with place.open(encoding="utf-8", newline="") as file:
        return [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _number(text: str | None) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None


def _per_image(path: Path) -> dict[str, Scores]:
    found: dict[str, Scores] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_key = found.setdefault(row["split"], {})
            by_key.setdefault((row["metric"], row["class"]), {})[row["image"]] = _number(row["score"])
    return found


def row_of(by_class: Mapping[str, object], classes: tuple[str, ...]) -> str:
    """The row of a metric that stands for it: the only one, that of the foreground, or the mean over classes."""
    return "all" if "all" in by_class else classes[1] if len(classes) == 2 else MEAN


def ordering(scores: Scores, monitor: str) -> Key:
    """By which scores images are ordered: those that the checkpoint was chosen by, averaged over classes."""
    metrics = [metric for metric, _ in scores]
    metric = monitor if monitor in metrics else metrics[0]
    return metric, "all" if (metric, "all") in scores else MEAN


def worst_first(scores: Mapping[str, float | None], higher_is_better: bool = True) -> list[str]:
    """The images from the worst to the best; at the end those without a score."""
    sign = 1 if higher_is_better else -1
    ranked = ((value is None, sign * (value or 0.0), place) for place, value in enumerate(scores.values()))
    names = list(scores)
    return [names[place] for *_, place in sorted(ranked)]


def chosen(scores: Mapping[str, float | None], higher_is_better: bool = True) -> dict[str, str]:
    """The worst, the median and the best image by rank; fewer where there are fewer with a score."""
    ordered = [name for name in worst_first(scores, higher_is_better) if scores[name] is not None]
    if len(ordered) < 3:
        return dict(zip(("worst", "best") if len(ordered) == 2 else ("only",), ordered, strict=False))
    return {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]}
