"""What a cross-validation left behind, finished or not, read from its files as they are."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from yeastexp import crossval, execution, experiment, folds, images, tracking
from yeastexp.experiment import Experiment
from yeastexp.report import remains
from yeastexp.report.remains import Key, Remains, Scores


@dataclass(frozen=True)
class Turn:
    """A fold held out with a seed, and what its run left."""

    seed: int
    fold: int
    left: Remains

    @property
    def name(self) -> str:
        """How the page calls it."""
        return f"seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class Folded:
    """A cross-validation's directory: its experiment, its folds, its turns so far, and its result where it is done."""

    path: Path
    experiment: Experiment
    dealt: folds.Folds
    turns: list[Turn]
    result: dict[str, Any] | None

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
    def scores(self) -> Scores:
        """The score of each image, the mean over seeds; empty where the result is not there yet."""
        return _means(self.path / crossval.PER_IMAGE) if self.result else {}

    @property
    def summary(self) -> tracking.Summary:
        """Means with intervals over images."""
        return self.result["scores"] if self.result else {}

    @property
    def first(self) -> Key:
        """The metric and class that a reader looks for first."""
        metric = self.experiment.monitor if self.experiment.monitor in self.summary else next(iter(self.summary))
        return metric, remains.row_of(self.summary[metric], self.classes)


def is_one(path: Path) -> bool:
    """Whether a folder is that of a cross-validation."""
    return (path / crossval.FOLDS).is_file() and (path / execution.EXPERIMENT).is_file()


def read(path: Path) -> Folded:
    """What a cross-validation left so far."""
    loaded = experiment.load(path / execution.EXPERIMENT, data=False)
    there = sorted(path.glob("seed_*_fold_*"), key=lambda place: images.natural(place.name))
    turns = []
    for place in there:
        if (place / execution.ENVIRONMENT).is_file() and (place / execution.EXPERIMENT).is_file():
            left = remains.read(place)
            turns.append(Turn(left.experiment.train.seed, left.experiment.train.fold or 0, left))
    result = path / crossval.RESULT
    found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None
    return Folded(path, loaded, folds.read(path / crossval.FOLDS), turns, found)


def _means(path: Path) -> Scores:
    kept: dict[Key, dict[str, list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_image = kept.setdefault((row["metric"], row["class"]), {}).setdefault(row["image"], [])
            by_image += [float(row["score"])] if row["score"] else []
    return {
        key: {image: math.fsum(some) / len(some) if some else None for image, some in by_image.items()}
        for key, by_image in kept.items()
    }
