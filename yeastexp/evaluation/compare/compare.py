"""The comparison of runs, or of cross-validations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yeastexp.config import diff
from yeastexp.errors import UserError, did_you_mean
from yeastexp.evaluation import out_of_fold
from yeastexp.evaluation.compare import crossval_scores, run_scores
from yeastexp.evaluation.compare.result import Comparison, Run, RunScores, Selection
from yeastexp.evaluation.measure import STANDARD, WithheldMetric, approximate_in, metric_of, standard_of, tolerance_of
from yeastexp.evaluation.source import Split
from yeastexp.metrics.intervals import holm, interval, paired
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.training.run_directory import RunDirectory, Which


def compare(
    paths: Sequence[Path],
    *,
    metric: str | None = None,
    class_name: str | None = None,
    checkpoint: Which = "best",
    data: Path | None = None,
    split: Split | None = None,
    device: str = "auto",
    output: Path | None = None,
    progress: ProgressBar[str] = iter,
) -> Comparison:
    """Compare runs image by image, the first with each of the others.

    The default metric is the first of the runs' common task, or IoU. Stored scores are used; a run that lacks them is
    evaluated, which writes `RUN/evaluations/…`. Cross-validations of the same folds are compared by the stored scores
    of their `last` checkpoints: `checkpoint` does not apply to them. Raises UserError if images, classes or folds
    differ, if `data` or `split` is given for cross-validations, or if `output` has an unknown format.
    """
    if output and output.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"{output}: figures are written as .png or .svg; name such a file")
    runs = _runs(paths)
    _refuse_different_classes(runs)
    metric = metric or _default_metric(runs)
    if any(out_of_fold.is_crossval(path) for path in paths):
        return _compare_crossvals(runs, metric, class_name, data, split)
    run_scores.refuse_unknown_metric(runs, metric)
    if metric != "boundary_f1":  # which all are evaluated with under the tolerance of the first
        run_scores.refuse_other_options(runs, metric)
    tolerance = tolerance_of(runs[0].experiment)
    selection = Selection(metric, checkpoint, data, split or run_scores.default_split(runs, data), tolerance)
    scores = run_scores.scores_of(runs, selection, device, progress)
    run_scores.refuse_different_images(runs, scores, data)
    return _comparison(runs, selection, scores, class_name)


def _compare_crossvals(
    runs: list[Run], metric: str, class_name: str | None, data: Path | None, split: Split | None
) -> Comparison:
    """Compare cross-validations by each image's mean score over seeds."""
    crossval_scores.refuse_mixture(runs)
    for option, value in (("--data", data), ("--split", split)):
        if value:
            raise UserError(f"{option}: cross-validations are compared on the images they held out; omit it")
    predictions = crossval_scores.read(runs, metric)
    scores = [crossval_scores.mean_over_seeds(each, metric) for each in predictions]
    selection = Selection(metric, "last", None, "val", tolerance_of(runs[0].experiment))
    comparison = _comparison(runs, selection, scores, class_name)
    spreads = [crossval_scores.spread(each, (metric, comparison.class_name)) for each in predictions]
    return replace(
        comparison, spreads=spreads, notes=list(dict.fromkeys(note for each in predictions for note in each.notes))
    )


def _comparison(
    runs: list[Run], selection: Selection, scores: Sequence[RunScores], class_name: str | None
) -> Comparison:
    """Compare the scores of a class, or by default of the metric's headline row."""
    by_class, images = scores[0].by_class, list(scores[0].images)
    if class_name is not None and class_name not in by_class:
        raise UserError(f"--class: the scores have none '{class_name}'{did_you_mean(class_name, by_class)}")
    runs = [_called_approximate(run) if selection.metric in approximate_in(run.experiment) else run for run in runs]
    metric = metric_of(runs[0].experiment, selection.metric)
    row = class_name or metric.headline(by_class, runs[0].experiment.task.classes)
    for run, each in zip(runs, scores, strict=True):
        if row not in each.by_class:
            raise UserError(f"{each.place}: has no score of '{row}'; bring back the one that {run.path} wrote")
    # Pairs belong to one image: the order of the first run's images holds for all.
    values = [[each.by_class[row][image] for image in images] for each in scores]
    numbers = [[math.nan if value is None else value for value in of_run] for of_run in values]
    pairs = [paired(numbers[0], other) for other in numbers[1:]]
    return Comparison(
        runs=runs,
        selection=selection,
        class_name=row,
        higher_is_better=None
        if isinstance(metric, WithheldMetric) or row in metric.undirected
        else metric.higher_is_better,
        selected=any(each.selected for each in scores),
        places=[each.place for each in scores],
        experiments=diff.of_experiments([run.experiment for run in runs]),
        environments=diff.of_environments([run.environment for run in runs]),
        images=images,
        scores=values,
        means=[interval(of_run, metric.bounds) for of_run in numbers],
        pairs=pairs,
        adjusted=holm([pair.p for pair in pairs]),
        trained=max(each.trained for each in scores),
    )


def _called_approximate(run: Run) -> Run:
    return replace(run, label=label_of_cells(run), approximate=True)


def label_of_cells(run: Run) -> str:
    """The label of a run, marked as having approximate cells."""
    return run.label if run.approximate else f"{run.label} (approximate cells)"


def _default_metric(runs: Sequence[Run]) -> str:
    """The first metric of the runs' tasks; IoU if the tasks differ or have no metrics of their own."""
    firsts = {standard_of(run.experiment)[0] for run in runs}
    return "iou" if len(firsts) > 1 or firsts == {STANDARD[0]} else firsts.pop()


def _runs(paths: Sequence[Path]) -> list[Run]:
    if len(paths) < 2:
        raise UserError(f"{' '.join(map(str, paths))}: nothing to compare with; name two runs or more")
    resolved = [path.resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        directory = RunDirectory.existing(path)
        if not out_of_fold.is_crossval(path):
            directory.refuse_folder_of_runs()
        if resolved.count(place) > 1:
            raise UserError(f"{path}: is named twice; name different runs")
    # Short labels only if they tell all runs apart: runs of two folders may share both names.
    short = [f"{place.parent.name}/{place.name}" for place in resolved]
    labels = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return [
        Run(path, label, RunDirectory(path).load(data=False, execute=False), _environment(path))
        for path, label in zip(paths, labels, strict=True)
    ]


def _environment(path: Path) -> dict[str, Any]:
    """The environment of a run, or of the first run of a cross-validation, which has none of its own."""
    if not out_of_fold.is_crossval(path):
        return RunDirectory(path).read_environment()
    seed = min(out_of_fold.read(path).seeds)
    return RunDirectory(out_of_fold.fold_folder(path, seed, 1)).read_environment()


def _refuse_different_classes(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.experiment.task.classes != runs[0].experiment.task.classes:
            names = [", ".join(each.experiment.task.classes) for each in (run, runs[0])]
            raise UserError(
                f"{run.path}: has the classes {names[0]}, but {runs[0].path} {names[1]}; compare runs of one task"
            )
