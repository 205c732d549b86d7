"""What a cross-validation left behind, finished or not, read from its files as they are."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from yeastexp.config import experiment
from yeastexp.config.experiment import Experiment
from yeastexp.data import folds, images
from yeastexp.evaluation import out_of_fold
from yeastexp.metrics.summary import Summary
from yeastexp.report import run_files
from yeastexp.report.run_files import Key, Remains, Scores
from yeastexp.training import run_directory


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
        if not self.result:
            return {}
        found = out_of_fold.read(self.path)
        every = {key: out_of_fold.means(table, axis=0) for key, table in found.scores.items()}
        return {
            key: {name: None if math.isnan(one) else one for name, one in zip(found.names, means, strict=True)}
            for key, means in every.items()
        }

    @property
    def summary(self) -> Summary:
        """Means with intervals over images."""
        return self.result["scores"] if self.result else {}

    @property
    def first(self) -> Key:
        """The metric and class that a reader looks for first."""
        metric = self.experiment.monitor if self.experiment.monitor in self.summary else next(iter(self.summary))
        return metric, run_files.row_of(self.summary[metric], self.classes)


def read(path: Path) -> Folded:
    """What a cross-validation left so far."""
    loaded = experiment.load(path / run_directory.EXPERIMENT, data=False)
    there = sorted(path.glob("seed_*_fold_*"), key=lambda place: images.natural(place.name))
    turns = []
    for place in there:
        if (place / run_directory.ENVIRONMENT).is_file() and (place / run_directory.EXPERIMENT).is_file():
            left = run_files.read(place)
            turns.append(Turn(left.experiment.train.seed, left.experiment.train.fold or 0, left))
    result = path / out_of_fold.RESULT
    found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None
    return Folded(path, loaded, folds.read(path / out_of_fold.FOLDS), turns, found)
