"""The files of a cross-validation, finished or not, read as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from yeastexp.config.experiment import Experiment
from yeastexp.data import folds, images
from yeastexp.errors import UserError
from yeastexp.evaluation import out_of_fold
from yeastexp.evaluation.measure import approximate_in
from yeastexp.metrics.summary import Summary
from yeastexp.report import run_files
from yeastexp.report.run_files import ImageScores, RunFiles, ScoreKey
from yeastexp.training.run_directory import RunDirectory


@dataclass(frozen=True)
class FoldRun:
    """The run that holds out one fold with one seed."""

    seed: int
    fold: int
    files: RunFiles

    @property
    def name(self) -> str:
        """The run's name in the page."""
        return f"seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class CrossvalFiles:
    """The files of a cross-validation: experiment, folds, runs, and the result if it has finished.

    `fold_runs` are those of the result, or those begun so far; `later` are runs begun since, with further seeds.
    """

    path: Path
    experiment: Experiment
    folds: folds.Folds
    fold_runs: list[FoldRun]
    result: dict[str, Any] | None
    later: list[FoldRun] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The last two folders of the cross-validation's path."""
        return run_files.last_two(self.path)

    @property
    def damage(self) -> list[str]:
        """A sentence on each file of predictions or of a run that cannot be read."""
        return self.lacking + [damage for fold_run in self.fold_runs for damage in fold_run.files.damage]

    @cached_property
    def lacking(self) -> list[str]:
        """A sentence on each prediction that the result belongs to and that cannot be read."""
        seeds = self.result["seeds"] if self.result else []
        paths = [
            RunDirectory(out_of_fold.fold_folder(self.path, seed, fold)).prediction(name)
            for seed in seeds
            for fold, names in enumerate(self.folds.folds, 1)
            for name in names
        ]
        remedy = f"without it, the same 'crossval' command with -o {self.path} writes it anew"
        return [f"{path}: is missing or damaged; {remedy}" for path in paths if not _is_mask(path)]

    def cells(self, name: str) -> Path:
        """The file of predicted cells of an image, with the first seed."""
        fold = next(fold for fold, names in enumerate(self.folds.folds, 1) if name in names)
        return RunDirectory(out_of_fold.fold_folder(self.path, self.seeds[0], fold)).cells(name)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.experiment.task.classes

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return sorted({fold_run.seed for fold_run in self.fold_runs})

    @cached_property
    def scores(self) -> ImageScores:
        """The score of each image, averaged over seeds; empty without a result."""
        if not self.result:
            return {}
        predicted = out_of_fold.read(self.path)
        means = {key: out_of_fold.means(table, axis=0) for key, table in predicted.scores.items()}
        return {
            key: {
                name: None if math.isnan(value) else value for name, value in zip(predicted.names, values, strict=True)
            }
            for key, values in means.items()
        }

    @property
    def approximate(self) -> tuple[str, ...]:
        """The metrics of cells that the task only approximates; none if its plugin is not executed."""
        return approximate_in(self.experiment)

    @property
    def summary(self) -> Summary:
        """Means with intervals over images; empty without a result."""
        return self.result["scores"] if self.result else {}

    @property
    def headline_key(self) -> ScoreKey:
        """The metric and class that the page begins with."""
        return run_files.headline_key(self.summary, self.experiment)


def read(path: Path) -> CrossvalFiles:
    """Read a cross-validation's directory."""
    loaded = RunDirectory(path).load(data=False, execute=False)
    directories = sorted(path.glob("seed_*_fold_*"), key=lambda directory: images.natural(directory.name))
    fold_runs = []
    for directory in directories:
        if run_files.is_run(directory):
            run = run_files.read(directory)
            fold_runs.append(FoldRun(run.experiment.train.seed, run.experiment.validation.fold or 0, run))
    content = out_of_fold.read_result(path) if (path / out_of_fold.RESULT).is_file() else None
    known = content["seeds"] if content else {fold_run.seed for fold_run in fold_runs}
    fold_runs, later = ([each for each in fold_runs if (each.seed in known) == wanted] for wanted in (True, False))
    return CrossvalFiles(path, loaded, folds.read(path / out_of_fold.FOLDS), fold_runs, content, later)


def _is_mask(path: Path) -> bool:
    try:
        images.read_mask(path)
    except (UserError, OSError):
        return False
    return True
