"""Which scores are compared, and the comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yeastexp.config.diff import Rows
from yeastexp.config.experiment import Experiment
from yeastexp.evaluation.source import Split
from yeastexp.metrics.intervals import Interval, Paired
from yeastexp.training.run_directory import Which

ByClass = dict[str, dict[str, float | None]]
"""By class and image, the score of a metric; None if an image has none."""


@dataclass(frozen=True)
class Run:
    """The directory of a run or of a cross-validation, its label in tables, its experiment and its environment.

    The environment of a cross-validation is that of its first run.
    """

    path: Path
    label: str
    experiment: Experiment
    environment: dict[str, Any]
    approximate: bool = False
    """Whether the scores are of cells that it only approximates, which its label then says."""

    @property
    def data_digests(self) -> dict[str, str]:
        """The digests of the files it was trained on, by name."""
        digests: dict[str, str] = self.environment["digests"]["data"]
        return digests

    def provenance(self, metric: str) -> tuple[object, ...]:
        """What the stored scores depend on beside the predictions: data, options of the metric, task."""
        dataset, recorded = self.experiment.dataset, self.environment
        options = {key: value for key, value in dataset.options.items() if not isinstance(value, Path)}
        version, plugins = recorded["versions"].get("yeastexp"), recorded["digests"]["plugins"]
        generated = None if self.data_digests else (version, plugins)
        how = [part.options for part in self.experiment.metrics if part.name == metric]
        return dataset.name, options, sorted(self.data_digests.values()), generated, how, self.experiment.task


@dataclass(frozen=True)
class Selection:
    """Which scores are compared."""

    metric: str
    checkpoint: Which
    data: Path | None
    split: Split
    tolerance_px: float


@dataclass(frozen=True)
class RunScores:
    """The scores of a run under one metric, the file they were read from, and the images with their digests.

    The digests are empty if all runs were scored on the same data.
    """

    by_class: ByClass
    place: Path
    images: dict[str, str]
    selected: bool


@dataclass(frozen=True)
class Spread:
    """Of a cross-validation: standard deviations of the images' means over seeds, and of the seeds' means over images.

    NaN of fewer than two.
    """

    seeds: list[int]
    between_images: float
    between_seeds: float

    @property
    def of_mean(self) -> float:
        """The standard deviation of the mean over seeds, as other seeds would give it."""
        return self.between_seeds / math.sqrt(len(self.seeds))


@dataclass(frozen=True)
class Comparison:
    """What differs between runs, the scores of each (images in the same order), and each beside the first.

    `spreads` has one for each cross-validation, and `notes` their notes on the data; both are empty for runs.
    `higher_is_better` is None of a score that is neither good nor bad, such as a number of cells.
    """

    runs: list[Run]
    selection: Selection
    class_name: str
    higher_is_better: bool | None
    selected: bool
    places: list[Path]
    experiments: Rows
    environments: Rows
    images: list[str]
    scores: list[list[float | None]]
    means: list[Interval]
    pairs: list[Paired]
    adjusted: list[float]
    spreads: list[Spread] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def out_of_fold(self) -> bool:
        """Whether cross-validations are compared."""
        return bool(self.spreads)


def and_more(names: Sequence[str]) -> str:
    """How many belong to one side beside the first, in the middle of a sentence."""
    return f" and {len(names) - 1} more belong" if len(names) > 1 else " belongs"
