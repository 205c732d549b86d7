"""What a run's best checkpoint says of the images that validate: pixels by class, and pictures of some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from yeastexp.errors import UserError
from yeastexp.evaluation import evaluate, record
from yeastexp.evaluation.evaluate import Source
from yeastexp.evaluation.record import Evaluation, Images
from yeastexp.metrics.pixels import most_likely
from yeastexp.prediction.predictor import load_predictor
from yeastexp.report import gallery, run_files, sections
from yeastexp.report.distributions import RANKS, higher_is_better, score_note
from yeastexp.report.html import Block, Gallery, Paragraph, Table
from yeastexp.report.run_files import Remains
from yeastexp.system import files
from yeastexp.training import build, checkpoints

Progress = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True)
class Predicted:
    """What the best checkpoint says of the images that validate: pixels by class, and the pictures of some."""

    confusion: Table
    gallery: Gallery


def source_of(left: Remains) -> Source | str:
    """The data set that a run was trained on, or why it cannot be had."""
    try:
        if reason := evaluate.missing(left.path, left.experiment):
            return reason
        return evaluate.own(left.path, left.experiment)
    except (UserError, OSError) as error:
        return str(error)


def predicted(left: Remains, source: Source | str, device: str, progress: Progress) -> Predicted | str:
    """What the best checkpoint says, on the images as they are now, or why nothing can be said."""
    if isinstance(source, str):
        return f"the images are gone ({source})"
    if not left.scores.get("val"):
        return "no image was scored yet"
    try:
        predictor = load_predictor(left.path, device=device)
        build.fixed_threads(predictor.experiment)
        images = source.images("val", predictor)
        return Predicted(_counted(left, images, progress), gallery.drawn(list(_shown(left, images))))
    except UserError as error:
        return str(error)


def _counted(left: Remains, images: Images, progress: Progress) -> Table:
    """Pixels by class: those that an evaluation of the same weights counted, else counted now."""
    note = "validation images, best checkpoint; the share is of the row: of the pixels that truly are of a class"
    counts = next((one.confusion for one in left.evaluations if _same_weights(left, one)), None)
    if counts is None:
        found = record.measure(images, {}, progress).confusion
        return sections.confusion(found, left.classes, f"{note}; counted for this page")
    return sections.confusion(np.asarray(counts), left.classes, note)


def _same_weights(left: Remains, one: Evaluation) -> bool:
    weights = left.path / checkpoints.FOLDER / checkpoints.BEST
    return (
        one.own_data
        and (one.split, one.checkpoint) == ("val", "best")
        and one.checkpoint_digest == files.digest(weights)
    )


def _shown(left: Remains, images: Images) -> Iterator[gallery.Shown]:
    scores = left.scores["val"]
    key = run_files.ordering(scores, left.experiment.monitor)
    better = higher_is_better(left.experiment)[key[0]]
    for rank, name in run_files.chosen(scores[key], better).items():
        sample = images.stored(name)
        prediction = most_likely(images.predictor.logits(images.seen(sample))).cpu().numpy()
        yield gallery.Shown(sample, prediction, f"{RANKS[rank]}: {name}", score_note(scores, key, name, left.classes))


def pictures(left: Remains, found: Predicted | str) -> Iterator[Block]:
    """The worst, the median and the best image; without the data, those that the run drew itself."""
    if isinstance(found, Predicted):
        yield found.gallery
        return
    yield Paragraph(f"Outlines are absent: {found}.", warning=True)
    if there := gallery.kept(left.path / "pictures"):
        yield there


def confusion(found: Predicted | str) -> Block:
    """Pixels by true and predicted class."""
    if isinstance(found, Predicted):
        return found.confusion
    return Paragraph(f"No pixels were counted: {found}.", warning=True)
