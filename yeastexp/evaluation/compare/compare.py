"""Runs, or cross-validations, beside each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yeastexp.config import diff
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import load_experiment
from yeastexp.errors import UserError, did_you_mean
from yeastexp.evaluation import out_of_fold, record
from yeastexp.evaluation.compare import crossval_scores, run_scores
from yeastexp.evaluation.compare.result import ByClass, Comparison, Run, Scored, Wanted
from yeastexp.evaluation.evaluate import Split
from yeastexp.metrics.intervals import holm, interval, paired
from yeastexp.metrics.summary import MEAN
from yeastexp.prediction.predictor import Which
from yeastexp.training import build, run_directory


def compare(
    paths: Sequence[Path],
    *,
    metric: str = "iou",
    class_name: str | None = None,
    checkpoint: Which = "best",
    data: Path | None = None,
    split: Split | None = None,
    device: str = "auto",
    output: Path | None = None,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Comparison:
    """Compare runs image by image; UserError where they do not have the same images, or where none draws `output`.

    Scores that were stored are used; where one is missing, that run is evaluated, which writes `RUN/evaluations/…`.
    Cross-validations are compared among themselves, dealt into the same folds, by what they stored of their `last`
    weights: `checkpoint` means nothing to them, and `data` and `split` are refused.
    """
    if output and output.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"{output}: figures are written as .png or .svg; name such a file")
    runs = _runs(paths)
    _refuse_other_classes(runs)
    if any(out_of_fold.is_one(path) for path in paths):
        return _compared_out_of_fold(runs, metric, class_name, data, split)
    run_scores.refuse_unknown_metric(runs, metric)
    tolerance = record.tolerance_of(runs[0].experiment)
    wanted = Wanted(metric, checkpoint, data, split or run_scores.usual_split(runs, data), tolerance)
    found = run_scores.scored(runs, wanted, device, progress)
    run_scores.refuse_other_images(runs, found)
    return _compared(runs, wanted, found, _class_of(runs, found[0].by_class, class_name))


def _compared_out_of_fold(
    runs: list[Run], metric: str, class_name: str | None, data: Path | None, split: Split | None
) -> Comparison:
    """Of cross-validations, whose scores are averaged over seeds image by image."""
    crossval_scores.refuse_mixture(runs)
    for option, given in (("--data", data), ("--split", split)):
        if given:
            raise UserError(f"{option}: cross-validations are compared on the images they held out; leave it away")
    found = crossval_scores.read(runs, metric)
    scored = [crossval_scores.averaged(one, metric) for one in found]
    class_name = _class_of(runs, scored[0].by_class, class_name)
    wanted = Wanted(metric, "last", None, "val", record.tolerance_of(runs[0].experiment))
    spreads = [crossval_scores.spread(one, (metric, class_name)) for one in found]
    notes = list(dict.fromkeys(note for one in found for note in one.notes))
    return replace(_compared(runs, wanted, scored, class_name), spreads=spreads, notes=notes)


def _compared(runs: list[Run], wanted: Wanted, found: Sequence[Scored], class_name: str) -> Comparison:
    images = list(found[0].images)
    scores = [[one.by_class[class_name][image] for image in images] for one in found]
    numbers = [[math.nan if score is None else score for score in row] for row in scores]
    within = (0.0, 1.0) if wanted.metric in record.SHARES else (-math.inf, math.inf)
    pairs = [paired(numbers[0], other) for other in numbers[1:]]
    return Comparison(
        runs=runs,
        wanted=wanted,
        class_name=class_name,
        higher_is_better=_higher_is_better(runs[0].experiment, wanted.metric),
        selected=any(one.selected for one in found),
        places=[one.place for one in found],
        experiments=diff.of_experiments([run.experiment for run in runs]),
        environments=diff.of_environments([run.environment for run in runs]),
        images=images,
        scores=scores,
        means=[interval(row, within) for row in numbers],
        pairs=pairs,
        adjusted=holm([one.p for one in pairs]),
    )


def _runs(paths: Sequence[Path]) -> list[Run]:
    if len(paths) < 2:
        raise UserError(f"{' '.join(map(str, paths))}: nothing to compare with; name two runs or more")
    resolved = [path.resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if not (path / run_directory.EXPERIMENT).is_file():
            raise UserError(f"{path}: no run directory; the last line that 'run' prints is one")
        if resolved.count(place) > 1:
            raise UserError(f"{path}: is named twice; name different runs")
    short = [f"{place.parent.name}/{place.name}" for place in resolved]
    labels = short if len(set(short)) == len(short) else [str(path) for path in paths]
    loaded = (load_experiment(path / run_directory.EXPERIMENT, data=False) for path in paths)
    return [Run(path, label, one, _environment(path)) for path, label, one in zip(paths, labels, loaded, strict=True)]


def _environment(path: Path) -> dict[str, Any]:
    if not out_of_fold.is_one(path):
        return run_directory.read_environment(path)
    seed = min(out_of_fold.read(path).seeds)
    return run_directory.read_environment(out_of_fold.turn_folder(path, seed, 1))


def _refuse_other_classes(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.experiment.task.classes != runs[0].experiment.task.classes:
            names = [", ".join(some.experiment.task.classes) for some in (run, runs[0])]
            raise UserError(
                f"{run.path}: has the classes {names[0]}, but {runs[0].path} {names[1]}; compare runs of one task"
            )


def _class_of(runs: Sequence[Run], by_class: ByClass, wanted: str | None) -> str:
    """The row of a metric that is compared: the one wanted, else the only one, the foreground or the mean."""
    classes = runs[0].experiment.task.classes
    usual = "all" if "all" in by_class else classes[1] if len(classes) == 2 else MEAN
    if wanted is not None and wanted not in by_class:
        raise UserError(f"--class: the scores have none '{wanted}'{did_you_mean(wanted, by_class)}")
    return wanted or usual


def _higher_is_better(loaded: Experiment, metric: str) -> bool:
    own = build.build_metrics(loaded)
    return own[metric].higher_is_better if metric in own else True
