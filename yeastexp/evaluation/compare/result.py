"""The data of a comparison: its runs, the scores that are compared, and the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yeastexp.config.diff import Rows
from yeastexp.config.experiment import Experiment, defaults
from yeastexp.evaluation.source import Split
from yeastexp.metrics.intervals import Interval, Paired
from yeastexp.training.run_directory import Which

ByClass = dict[str, dict[str, float | None]]
"""The scores of one metric by class and image name; None where an image has none."""


@dataclass(frozen=True)
class Run:
    """A run or a cross-validation: its folder, its label in tables, its experiment and its environment."""

    path: Path
    label: str
    experiment: Experiment
    environment: dict[str, Any]
    approximate: bool = False
    """Whether the scores are of cells that its task only approximates; the label then says so."""

    @property
    def data_digests(self) -> dict[str, str]:
        """The digests of the data files that it was trained on, by name."""
        digests: dict[str, str] = self.environment["digests"]["data"]
        return digests

    def provenance(self, metric: str) -> tuple[object, ...]:
        """All that stored scores depend on besides the predictions: the data, the metric's options, and the task.

        Runs of equal provenance were scored on the same images in the same way, and their scores can be paired.
        """
        # Paths do not count, as files are compared by their digests. Generated images have no files: the version of the
        # code that generates them stands for their content.
        dataset, recorded = self.experiment.dataset, self.environment
        options = {key: value for key, value in dataset.options.items() if not isinstance(value, Path)}
        version, plugins = recorded["versions"].get("yeastexp"), recorded["digests"]["plugins"]
        generated = None if self.data_digests else (version, plugins)
        how = self.options(metric)
        return dataset.name, options, sorted(self.data_digests.values()), generated, how, self.experiment.task

    def options(self, metric: str) -> dict[str, Any]:
        """The options that a metric counts with: those of the experiment, else the defaults."""
        written = next((part.options for part in self.experiment.metrics if part.name == metric), {})
        return {**defaults("metric", metric), **written}


@dataclass(frozen=True)
class Selection:
    """The choice of the scores that are compared."""

    metric: str
    checkpoint: Which
    data: Path | None
    split: Split
    tolerance_px: float


@dataclass(frozen=True)
class RunScores:
    """The scores of a run under one metric."""

    by_class: ByClass
    place: Path
    """The file that holds the scores."""
    images: dict[str, str]
    """The images' digests by name; empty strings where all runs are known to have been scored on the same data."""
    selected: bool
    """Whether these images selected the checkpoint."""
    trained: int = 0
    """On so many of these images it was trained."""


@dataclass(frozen=True)
class Spread:
    """The spread of a cross-validation: standard deviations of images' means over seeds, and of seeds' over images.

    NaN if there are fewer than two.
    """

    seeds: list[int]
    between_images: float
    between_seeds: float

    @property
    def of_mean(self) -> float:
        """The standard error of the mean over seeds."""
        return self.between_seeds / math.sqrt(len(self.seeds))


@dataclass(frozen=True)
class Comparison:
    """The comparison of runs: what differs between them, their scores, and the difference of each from the first.

    Lists have the order of `runs`, but `pairs` and `adjusted` lack the first. `scores` have the order of `images`.
    `spreads` has one for each cross-validation, and `notes` their notes on the data; both are empty for runs. `trained`
    is the number of images that any run was trained on.
    `higher_is_better` is None if that cannot be said, as of a number of cells.
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
    trained: int = 0
    spreads: list[Spread] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def out_of_fold(self) -> bool:
        """Whether cross-validations are compared."""
        return bool(self.spreads)


def and_more(names: Sequence[str]) -> str:
    """The verb of a sentence on the first of `names`, with the number of further ones."""
    return f" and {len(names) - 1} more belong" if len(names) > 1 else " belongs"
