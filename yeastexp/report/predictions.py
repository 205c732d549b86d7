"""Predictions of a run's best checkpoint on its validation images: the confusion matrix and a few images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from yeastexp.errors import UserError
from yeastexp.evaluation.cells import CellSurvey
from yeastexp.evaluation.measure import measure, metric_of, scores_cells
from yeastexp.evaluation.record import Evaluation
from yeastexp.evaluation.source import Images, Source, missing, training_source
from yeastexp.metrics.pixels import confusion
from yeastexp.prediction.predictor import load_predictor
from yeastexp.report import cells, gallery, run_files, sections
from yeastexp.report.cells import SurveyedCells
from yeastexp.report.distributions import RANKS, score_note
from yeastexp.report.gallery import PredictedImage
from yeastexp.report.html import Block, Gallery, Paragraph, Table
from yeastexp.report.run_files import RunFiles
from yeastexp.system import files
from yeastexp.system.progress_bar import ProgressBar
from yeastexp.training.device import configure_torch
from yeastexp.training.run_directory import RunDirectory

CONFUSION_NOTE = "validation images, best checkpoint; shares are of the row, the pixels of one true class"


Say = Callable[[str], None]
"""Prints a line on the terminal."""


def silent(line: str) -> None:
    """Print nothing; the default of `Say`."""


@dataclass(frozen=True)
class BestPredictions:
    """The confusion matrix of all validation images, galleries of some, and if cells are scored, a survey of them."""

    confusion: Table
    gallery: Gallery
    training: Gallery
    cells: SurveyedCells | None = None


def source_of(run: RunFiles) -> Source | str:
    """The data set that a run was trained on, or the reason why it is unavailable."""
    if run.experiment.withheld:
        return run.experiment.withheld[0]
    try:
        if reason := missing(run.path, run.experiment, run.edits):
            return reason
        return training_source(run.path, run.experiment, run.edits)
    except (UserError, OSError) as error:
        return str(error)


def predict_best(run: RunFiles, source: Source | str, device: str, progress: ProgressBar[str]) -> BestPredictions | str:
    """Predict the validation images with the best checkpoint; returns the reason if that is impossible.

    A page is written all the same, without what could not be computed.
    """
    if isinstance(source, str):
        return f"the images are not available ({source})"
    if not run.scores.get("val"):
        return "no image has been scored yet"
    try:
        predictor = load_predictor(run.path, device=device)
        configure_torch(predictor.experiment)
        images = source.images("val", predictor)
        chosen = gallery.overlay_gallery(list(_selected(run, images)))
        trained_on = gallery.overlay_gallery(list(_trained_on(source.images("train", predictor))), "train")
        if scores_cells(run.experiment) and "instances" in images.dataset.maps:
            confusion, surveyed = _surveyed(run, images, progress)
            return BestPredictions(confusion, chosen, trained_on, surveyed)
        return BestPredictions(_confusion(run, images, progress), chosen, trained_on)
    except UserError as error:
        return str(error)


def surveyed_cells(run: RunFiles, source: Source | str, device: str, progress: ProgressBar[str]) -> SurveyedCells | str:
    """Survey the cells of the validation images as the best checkpoint predicts them; or the reason why not."""
    if isinstance(source, str):
        return f"the images are not available ({source})"
    try:
        predictor = load_predictor(run.path, device=device)
        configure_torch(predictor.experiment)
        return _surveyed(run, source.images("val", predictor), progress)[1]
    except UserError as error:
        return str(error)


def _surveyed(run: RunFiles, images: Images, progress: ProgressBar[str]) -> tuple[Table, SurveyedCells]:
    """The confusion matrix and the survey of all cells, from a single prediction of each image."""
    survey = CellSurvey(cells.MOST_CROPS, cells.ignore_border_of(run.experiment))
    sizes = set[float | None]()
    counts = np.zeros((len(run.classes), len(run.classes)), np.int64)
    for name in progress(images.names):
        sample = images.stored(name)
        prediction = images.predictor.predict(images.rescaled(sample))
        counts += confusion(prediction.labels.cpu(), sample.labels, len(run.classes)).numpy()
        sizes.add(sample.pixel_um)
        survey.add(sample, prediction.asked({"instances"})["instances"].cpu().numpy())
    surveyed = SurveyedCells(survey, sizes, bool(run.approximate))
    return sections.confusion_table(counts, run.classes, f"{CONFUSION_NOTE}; computed for this page"), surveyed


def _confusion(run: RunFiles, images: Images, progress: ProgressBar[str]) -> Table:
    """The confusion matrix from an evaluation of the same weights if there is one, else counted now."""
    note = CONFUSION_NOTE
    counts = next((evaluation.confusion for evaluation in run.evaluations if _same_weights(run, evaluation)), None)
    if counts is None:
        measured = measure(images, {}, progress).confusion
        return sections.confusion_table(measured, run.classes, f"{note}; computed for this page")
    return sections.confusion_table(np.asarray(counts), run.classes, note)


def _same_weights(run: RunFiles, evaluation: Evaluation) -> bool:
    weights = RunDirectory(run.path).checkpoint("best")
    return (
        evaluation.own_data
        and (evaluation.split, evaluation.checkpoint) == ("val", "best")
        and evaluation.checkpoint_digest == files.digest(weights)
    )


def _selected(run: RunFiles, images: Images) -> Iterator[PredictedImage]:
    scores = run.scores["val"]
    key = run_files.ranking_key(scores, run.experiment.monitor)
    better = metric_of(run.experiment, key[0]).higher_is_better
    for rank, name in run_files.representatives(scores[key], better).items():
        if name not in images.names:
            raise UserError(
                f"{run.directory.per_image}: names '{name}', which is no validation image of this run; bring back the "
                "one that it wrote, or remove it"
            )
        note = score_note(scores, key, name, run.classes, run.approximate)
        yield _predicted(images, name, f"{RANKS[rank]}: {name}", note)


def _trained_on(images: Images) -> Iterator[PredictedImage]:
    """The first, the middle and the last training image, predicted."""
    # In the order of the data set, images of one movie usually stand together: these three are of different movies.
    names = images.names
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        yield _predicted(images, name, name, "a training image")


def _predicted(images: Images, name: str, heading: str, note: str) -> PredictedImage:
    sample = images.stored(name)
    prediction = images.predictor.predict(images.rescaled(sample))
    told_apart = prediction.instances if "instances" in sample.maps else None
    ids = None if told_apart is None else told_apart.cpu().numpy()
    return PredictedImage(sample, prediction.labels.cpu().numpy(), heading, note, ids)


def gallery_blocks(run: RunFiles, predictions: BestPredictions | str) -> Iterator[Block]:
    """Blocks with the worst, the median and the best image; without the data, with the pictures that the run drew."""
    if isinstance(predictions, BestPredictions):
        yield predictions.gallery
        return
    yield Paragraph(f"No overlays: {predictions}.", warning=True)
    if saved := gallery.saved_gallery(run.directory.pictures):
        yield saved


def cell_blocks(run: RunFiles, predictions: BestPredictions | str) -> Iterator[Block]:
    """Blocks on the numbers and sizes of cells and the worst of them; without the data, on their numbers alone."""
    if not isinstance(predictions, BestPredictions):
        yield from cells.stored_blocks(run.scores.get("val", {}), "count" in run.approximate)
    elif predictions.cells:
        yield from cells.blocks(predictions.cells)


def training_blocks(predictions: BestPredictions | str) -> Iterator[Block]:
    """Blocks with training images, which show whether labels fit the images, and whether the model has learnt them."""
    if isinstance(predictions, BestPredictions):
        yield predictions.training


def confusion_block(predictions: BestPredictions | str) -> Block:
    """The confusion matrix as a block, or the reason why there is none."""
    if isinstance(predictions, BestPredictions):
        return predictions.confusion
    return Paragraph(f"No confusion matrix: {predictions}.", warning=True)
