"""The scores of runs on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yeastexp.errors import UserError, did_you_mean
from yeastexp.evaluation import record
from yeastexp.evaluation.compare.result import ByClass, Run, RunScores, Selection, and_more
from yeastexp.evaluation.evaluate import evaluate
from yeastexp.evaluation.measure import metric_of, standard_of
from yeastexp.evaluation.record import Evaluation
from yeastexp.evaluation.source import Split
from yeastexp.registry import KINDS
from yeastexp.system import files
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.training.run_directory import RunDirectory


def refuse_unknown_metric(runs: Sequence[Run], metric: str) -> None:
    """Raises UserError if a run cannot be scored with the metric, or if the metric's plugin is not executed."""
    metrics = [(*standard_of(run.experiment), *(part.name for part in run.experiment.metrics)) for run in runs]
    shared = set.intersection(*map(set, metrics))
    if metric not in KINDS["metric"] and (withheld := [line for run in runs for line in run.experiment.withheld]):
        raise UserError(*withheld)  # nothing else tells whether a higher score is better
    standard = [name for name in standard_of(runs[0].experiment) if name in shared]
    known = [*standard, *sorted(shared - {*standard})]
    if metric not in known:
        raise UserError(f"--metric: '{metric}' is no metric of all these runs{did_you_mean(metric, known)}")


def refuse_other_options(runs: Sequence[Run], metric: str) -> None:
    """Raises UserError if runs count a metric in different ways, whose difference would not be one of predictions."""
    first = runs[0].options(metric)
    for run in runs[1:]:
        options = run.options(metric)
        if different := [key for key in {**first, **options} if options.get(key) != first.get(key)]:
            values = [of_run.get(different[0]) for of_run in (options, first)]
            raise UserError(
                f"{run.path}: counts '{metric}' with {different[0]} = {values[0]}, but {runs[0].path} with "
                f"{values[1]}; choose another --metric"
            )


def default_split(runs: Sequence[Run], data: Path | None) -> Split:
    """The split that is compared by default: validation images, or all images of a file that no run was trained on."""
    if data is None:
        return "val"
    if not data.is_file():
        raise UserError(f"{data}: no such file; name an HDF5 file, as 'pack' makes it")
    digest = files.digest(data)
    return "val" if any(digest in run.data_digests.values() for run in runs) else "all"


def scores_of(runs: Sequence[Run], selection: Selection, device: str, progress: ProgressBar[str]) -> list[RunScores]:
    """The scores that the runs stored themselves; if any of them has none, those of evaluations of all runs."""
    # Never some of each: a run's own scores name no digests of images, so that nothing would tell whether both kinds
    # are of the same pixels.
    return _stored(runs, selection) or [_evaluated(run, selection, device, progress) for run in runs]


def _stored(runs: Sequence[Run], selection: Selection) -> list[RunScores] | None:
    """The scores that the runs wrote themselves; None if any lacks them, or if the runs' provenance differs."""
    if selection.data or selection.checkpoint != "best" or selection.split not in ("val", "test"):
        return None
    if any(run.provenance(selection.metric) != runs[0].provenance(selection.metric) for run in runs):
        return None
    stored = [scores for run in runs if (scores := _of_result(run, selection))]
    return stored if len(stored) == len(runs) else None


def _of_result(run: Run, selection: Selection) -> RunScores | None:
    """The scores that a run wrote when it ended; None if it did not end, or lacks the metric."""
    directory = RunDirectory(run.path)
    if not directory.is_finished:
        return None
    by_class: ByClass = {}
    for (metric, name), by_image in directory.read_per_image().get(selection.split, {}).items():
        if metric == selection.metric:
            by_class[name] = by_image
    images = dict.fromkeys(next(iter(by_class.values()), {}), "")
    selected = selection.split == "val" and directory.is_selected
    return RunScores(by_class, directory.per_image, images, selected) if by_class else None


def _evaluated(run: Run, selection: Selection, device: str, progress: ProgressBar[str]) -> RunScores:
    """The scores of an earlier evaluation of the selection, or of one that is made now."""
    folder, evaluation = _earlier(run, selection) or evaluate(
        run.path,
        selection.data,
        split=selection.split,
        checkpoint=selection.checkpoint,
        tolerance_px=selection.tolerance_px,
        device=device,
        progress=progress,
    )
    if selection.metric not in evaluation.per_image:
        raise UserError(
            f"{evaluation.path or evaluation.data}: lacks the map that '{selection.metric}' needs; choose another "
            "--metric"
        )
    by_class = {
        name: dict(zip(evaluation.images, scores, strict=True))
        for name, scores in evaluation.per_image[selection.metric].items()
    }
    # Images of equal pixels are others to a metric of cells if their cells are others.
    maps = _data_maps(run, selection.metric)
    images = {
        name: " ".join([digest, *(evaluation.maps[name][each] for each in maps)])
        for name, digest in evaluation.images.items()
    }
    trained, selected = len(evaluation.trained_on or ()), bool(evaluation.selected_on)
    return RunScores(by_class, folder / record.EVALUATION, images, selected, trained)


def _data_maps(run: Run, metric: str) -> list[str]:
    return sorted(metric_of(run.experiment, metric).data_maps)


def _earlier(run: Run, selection: Selection) -> tuple[Path, Evaluation] | None:
    """An earlier evaluation of the same weights on the same images in the same way; None if there is none."""
    weights = RunDirectory(run.path).checkpoint(selection.checkpoint)
    if not weights.is_file():
        return None
    good: set[str | None] = {files.digest(selection.data)} if selection.data else {*run.data_digests.values(), None}
    how = selection.checkpoint, files.digest(weights), selection.split, selection.tolerance_px
    for folder, evaluation in record.read_all(RunDirectory(run.path)).items():
        if evaluation.data_digest not in good or selection.metric not in evaluation.per_image:
            continue
        # One with its own border option may have left out cells that the others count.
        if evaluation.ignore_border_px is not None:
            continue
        # One of an earlier version does not say which cells it scored with.
        if any({*_data_maps(run, selection.metric)} - {*evaluation.maps.get(name, {})} for name in evaluation.images):
            continue
        weights_digest, tolerance = evaluation.checkpoint_digest, evaluation.boundary_tolerance_px
        if (evaluation.checkpoint, weights_digest, evaluation.split, tolerance) == how:
            return folder, evaluation
    return None


def refuse_different_images(runs: Sequence[Run], scores: Sequence[RunScores], data: Path | None) -> None:
    """Raises UserError naming the first run whose images differ from the first run's, in name or in content."""
    first, remedy = scores[0].images, "compare them on one file, with --data"
    # On its own file, too, each run is scored on the images that it held out.
    if data or any(run.experiment.validation.folds for run in runs):
        remedy = "compare runs that held out the same images, or on a file that none was trained on, with --data"
    for run, other in zip(runs, scores, strict=True):
        for holder, names, others in ((runs[0], first, other.images), (run, other.images, first)):
            if alone := [name for name in names if name not in others]:
                raise UserError(
                    f"{run.path}: was scored on other images than {runs[0].path}: '{alone[0]}'{and_more(alone)} to "
                    f"{holder.path} alone; {remedy}"
                )
        if different := [name for name in first if first[name] != other.images[name]]:
            raise UserError(
                f"{run.path}: image '{different[0]}' is not the one of {runs[0].path} "
                f"({len(different)} of {len(first)} have other pixels, labels or cells under the same name); {remedy}"
            )
