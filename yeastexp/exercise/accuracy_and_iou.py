"""Which of accuracy and mean IoU says more: predictions that are wrong by a known amount, scored by the metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich import box
from rich.table import Table

from yeastexp.drawing import plots
from yeastexp.exercise import degradations, discs, writing
from yeastexp.metrics.pixels import Accuracy, DeadCellFalsePositives, IoU
from yeastexp.metrics.summary import MEAN, Summary, summarise
from yeastexp.sample import Sample
from yeastexp.training.step import score

CLASSES = ("background", "cell")

Aggregation = Literal["per_image", "pooled"]
AGGREGATIONS: tuple[Aggregation, ...] = ("per_image", "pooled")

SHARES = (0.02, 0.05, 0.1, 0.25, 0.5)
"""Of the foreground, wanted in each set of images."""

SPREAD = (0.5, 1.1, 1.1, 1.1, 1.1, 1.1)
"""What the shares of a set's images are multiplied by: one is sparser, so that images weigh differently."""

SMALL_PX = 16
"""Cells less wide are the buds, and what the border leaves of a cell."""

LITTLE, MUCH = 2, 6
"""Pixels by which outlines are moved."""


@dataclass(frozen=True)
class Prediction:
    """What is done to the truth, and how its points look in the figure."""

    name: str
    answer: degradations.Degradation
    look: int
    hollow: bool = False


@dataclass(frozen=True)
class Row:
    """The scores of one prediction on one set of images, whose share of foreground was measured."""

    prediction: Prediction
    share: float
    scores: Summary

    def accuracy(self, how: Aggregation = "per_image") -> float:
        """The accuracy."""
        return _number(self.scores["accuracy"]["all"][how])

    def iou(self, of: str = MEAN, how: Aggregation = "per_image") -> float:
        """The IoU of a class, or the mean of both."""
        return _number(self.scores["iou"][of][how])

    @property
    def dead_taken(self) -> float:
        """The share of all dead cells that is predicted as cells."""
        return _number(self.scores["dead_cell_false_positives"]["all"]["pooled"])


@dataclass(frozen=True)
class Study:
    """All rows: the sets of images, from the sparsest, within the predictions."""

    rows: tuple[Row, ...]

    def of(self, name: str) -> list[Row]:
        """The rows of one prediction, from the sparsest set of images."""
        return [row for row in self.rows if row.prediction.name == name]

    def at(self, share: float) -> list[Row]:
        """The rows of one set of images."""
        return [row for row in self.rows if row.share == share]

    @property
    def names(self) -> list[str]:
        """The predictions, in order."""
        return list(dict.fromkeys(row.prediction.name for row in self.rows))

    @property
    def shares(self) -> list[float]:
        """The measured shares of foreground, in order."""
        return list(dict.fromkeys(row.share for row in self.rows))


def study() -> Study:
    """Score every prediction on every set of images."""
    sets = [images(share) for share in SHARES]
    done = [[_row(prediction, samples) for samples in sets] for prediction in predictions()]
    return Study(tuple(row for rows in done for row in rows))


def images(share: float) -> list[Sample]:
    """A set of images with about this share of foreground, the sparsest first."""
    return [discs.field(share * factor, number) for number, factor in enumerate(SPREAD)]


ALL_BACKGROUND = "all background"
DEAD_AS_LIVE = "dead taken as live"
SPARSEST_MISSED = "one image missed"


def predictions() -> list[Prediction]:
    """What is done to the truth: nothing right, outlines and places moved, cells missed, dead ones added."""
    return [
        Prediction(ALL_BACKGROUND, degradations.all_background, 0),
        Prediction(f"shrunk by {LITTLE} px", degradations.shrunken(LITTLE), 1, hollow=True),
        Prediction(f"shrunk by {MUCH} px", degradations.shrunken(MUCH), 1),
        Prediction(f"grown by {LITTLE} px", degradations.grown(LITTLE), 2, hollow=True),
        Prediction(f"grown by {MUCH} px", degradations.grown(MUCH), 2),
        Prediction(f"shifted by {LITTLE} px", degradations.shifted(LITTLE), 3, hollow=True),
        Prediction(f"shifted by {MUCH} px", degradations.shifted(MUCH), 3),
        Prediction("small cells missed", degradations.without_small(SMALL_PX), 4, hollow=True),
        Prediction(SPARSEST_MISSED, degradations.without_image("field_0"), 4),
        Prediction(DEAD_AS_LIVE, degradations.dead_as_live, 5),
    ]


def _row(prediction: Prediction, samples: Sequence[Sample]) -> Row:
    metrics = {
        "accuracy": Accuracy(len(CLASSES)),
        "iou": IoU(len(CLASSES)),
        "dead_cell_false_positives": DeadCellFalsePositives(len(CLASSES)),
    }
    found = score(prediction.answer, samples, metrics, torch.device("cpu"))
    foreground = sum(int((sample.labels > 0).sum()) for sample in samples)
    share = foreground / sum(sample.labels.numel() for sample in samples)
    return Row(prediction, share, summarise(found, CLASSES))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def as_json(done: Study) -> dict[str, Any]:
    """All figures, for scripts."""
    rows = [{"prediction": row.prediction.name, "foreground": row.share, **row.scores} for row in done.rows]
    return {"images_a_set": len(SPREAD), "size": discs.SIZE, "rows": rows, "findings": findings(done)}


def table(done: Study) -> Table:
    """All figures, for people: what one prediction gets on sets of images with ever more foreground."""
    title = f"sets of {len(SPREAD)} images of {discs.SIZE} × {discs.SIZE} pixels; by image, and pooled over all pixels"
    caption = f"small cells: less than {SMALL_PX} px across; one image: the sparsest of each set"
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    made.add_column("\n\nprediction", no_wrap=True)
    headings = ["\nfore-\nground"]
    for heading in ("\naccuracy", "mean\nIoU", "IoU\nbackgr.", "IoU\ncells"):
        headings += [f"{heading}\nimage", "\n\npooled"]
    for heading in (*headings, "dead\ncells\ntaken"):
        made.add_column(heading, justify="right", no_wrap=True)
    for name in done.names:
        for index, row in enumerate(done.of(name)):
            made.add_row("" if index else name, f"{row.share:.1%}", *_cells(row))
        made.add_section()
    return made


def _cells(row: Row) -> Iterator[str]:
    for how in AGGREGATIONS:
        yield f"{row.accuracy(how):.3f}"
    for of in (MEAN, *CLASSES):
        for how in AGGREGATIONS:
            yield f"{row.iou(of, how):.3f}"
    yield f"{row.dead_taken:.0%}"


def figure(done: Study, how: Aggregation = "per_image") -> plots.Figure:
    """Accuracy against mean IoU and against the IoU of each class."""
    panels = {"mean IoU": MEAN, **{f"IoU of {name}": name for name in CLASSES}}
    ends = f"{done.shares[0]:.0%}", f"{done.shares[-1]:.0%}"
    return plots.scatter(
        {title: [_series(done, name, of, how) for name in done.names] for title, of in panels.items()},
        x_label=f"accuracy; each line from {ends[0]} to {ends[1]} foreground",
        y_label=f"IoU, {how.replace('_', ' ')}",
        joined=True,
        ends=ends,
    )


def _series(done: Study, name: str, of: str, how: Aggregation) -> plots.Series:
    rows = done.of(name)
    first = rows[0].prediction
    accuracies, ious = [row.accuracy(how) for row in rows], [row.iou(of, how) for row in rows]
    return plots.Series(name, accuracies, ious, first.look, first.hollow)


def findings(done: Study) -> list[str]:
    """What the figures say, in sentences made of them."""
    return [
        _nothing_found(done),
        _same_error(done),
        _order(done),
        _by_class(done),
        _dead_cells(done),
        _pooled(done),
        _verdict(done),
    ]


def _nothing_found(done: Study) -> str:
    sparse, dense = done.of(ALL_BACKGROUND)[0], done.of(ALL_BACKGROUND)[-1]
    return (
        f"All background finds no cell. It is {sparse.accuracy():.1%} accurate on images with {sparse.share:.1%} "
        f"foreground and {dense.accuracy():.1%} on images with {dense.share:.1%}: its accuracy says how empty the "
        f"images are. Its mean IoU is {sparse.iou():.3f} and {dense.iou():.3f}, half of what the background gets "
        f"({sparse.iou('background'):.3f} and {dense.iou('background'):.3f}); the cells get {sparse.iou('cell'):.3f}."
    )


def _same_error(done: Study) -> str:
    name = f"shrunk by {LITTLE} px"
    sparse, dense = done.of(name)[0], done.of(name)[-1]
    wrong = (1 - dense.accuracy()) / (1 - sparse.accuracy())
    return (
        f"The same error looks smaller where there is less to find. With all cells {name} the accuracy is "
        f"{sparse.accuracy():.3f} at {sparse.share:.1%} foreground and {dense.accuracy():.3f} at {dense.share:.1%}, "
        f"where {wrong:.0f} times as many pixels are wrong. The cells' IoU is {sparse.iou('cell'):.3f} and "
        f"{dense.iou('cell'):.3f}."
    )


def _order(done: Study) -> str:
    nothing, *others = done.at(done.shares[0])
    beaten = [row for row in others if row.accuracy() < nothing.accuracy() and row.iou() > nothing.iou()]
    if not beaten:
        return f"At {nothing.share:.1%} foreground no prediction with a higher mean IoU is less accurate than no cells."
    said = "; ".join(f"{row.prediction.name}, {row.accuracy():.3f} and {row.iou():.3f}" for row in beaten)
    return (
        f"The two put predictions in different orders. At {nothing.share:.1%} foreground all background has the higher "
        f"accuracy ({nothing.accuracy():.3f}) and the lower mean IoU ({nothing.iou():.3f}) beside: {said}."
    )


def _by_class(done: Study) -> str:
    worst = min(done.at(done.shares[0])[1:], key=lambda row: row.iou("cell"))
    return (
        f"The mean IoU flatters as well, for the background is half of it: {worst.prediction.name}, at "
        f"{worst.share:.1%} foreground, gets {worst.iou():.3f}, of {worst.iou('background'):.3f} for the background "
        f"and {worst.iou('cell'):.3f} for the cells. Read the cells' own beside it."
    )


def _dead_cells(done: Study) -> str:
    wrong = done.of(DEAD_AS_LIVE)[-1]
    others = [row for row in done.at(wrong.share) if not row.dead_taken]
    peer = min(others, key=lambda row: abs(row.iou() - wrong.iou()))
    return (
        f"Neither says what went wrong. At {wrong.share:.1%} foreground {DEAD_AS_LIVE} gets {wrong.accuracy():.3f} "
        f"(accuracy) and {wrong.iou():.3f} (mean IoU), much as {peer.prediction.name} does with {peer.accuracy():.3f} "
        f"and {peer.iou():.3f}; dead_cell_false_positives is {wrong.dead_taken:.0%} and {peer.dead_taken:.0%}."
    )


def _pooled(done: Study) -> str:
    row = done.of(SPARSEST_MISSED)[-1]
    return (
        f"Pooled scores hide a sparse image that fails. With {SPARSEST_MISSED} of {len(SPREAD)}, the sparsest, at "
        f"{row.share:.1%} foreground, the cells' IoU is {row.iou('cell', 'pooled'):.3f} pooled and "
        f"{row.iou('cell'):.3f} per image."
    )


def _verdict(done: Study) -> str:
    rows = done.at(done.shares[0])
    spans = {
        "accuracy": _span([row.accuracy() for row in rows]),
        "mean IoU": _span([row.iou() for row in rows]),
        "the cells' IoU": _span([row.iou("cell") for row in rows]),
    }
    said = ", ".join(f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in spans.items())
    width = {name: high - low for name, (low, high) in spans.items()}
    less, more = sorted(("accuracy", "mean IoU"), key=lambda name: width[name])
    return (
        f"So the {more} is the more informative of the two. The {len(rows)} predictions at {rows[0].share:.1%} "
        f"foreground lie within: {said}; the range of the {more} is {width[more] / width[less]:.0f} times that of the "
        f"{less}."
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def write(done: Study, folder: Path) -> list[Path]:
    """The figures as JSON and the plots as PNG and SVG, in a folder."""
    plots_of = {"accuracy_and_iou": figure(done), "accuracy_and_iou_pooled": figure(done, "pooled")}
    return writing.write(folder, "accuracy_and_iou", plots_of, as_json(done))
