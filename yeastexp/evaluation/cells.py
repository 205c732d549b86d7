"""Cells one by one: which are missed, false, split, merged or badly matched in which image, and how large all are."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.drawing import pictures
from yeastexp.drawing.pictures import Limits
from yeastexp.metrics.instances import cell_errors
from yeastexp.metrics.matching import Overlap, matches, overlap
from yeastexp.sample import IGNORE, Sample

Ids = npt.NDArray[np.integer[Any]]

ERRORS = ("missed", "false", "split", "merged")
KINDS = (*ERRORS, "matched")
"""What can be said of a cell; a matched one has a partner at an IoU of at least one half."""


@dataclass(frozen=True)
class CellEvent:
    """What happened to a cell of an image: its kind, the ids of the true and predicted cells, and the best IoU."""

    image: str
    kind: str
    true: tuple[int, ...]
    predicted: tuple[int, ...]
    pixels: int
    iou: float

    @property
    def severity(self) -> tuple[float, float]:
        """The largest cells with an error are the worst, and of matched cells those with the least IoU."""
        return (-self.iou, self.pixels) if self.kind == "matched" else (self.pixels, -self.iou)


@dataclass(frozen=True)
class CellCrop:
    """An event with the pixels around it, (C, h, w) and the ids (h, w), and the limits of the whole image."""

    event: CellEvent
    image: npt.NDArray[np.float32]
    limits: Limits
    true: Ids
    predicted: Ids


def events(image: str, table: Overlap) -> Iterator[CellEvent]:
    """An event for each cell that is missed, false, split or merged, then for each other pair of matched cells."""
    errors, iou = cell_errors(table), table.iou
    true, predicted = table.true_ids[table.true], table.predicted_ids[table.predicted]
    true_cells = _cells(table.true_ids, table.true_pixels, table.true, iou)
    predicted_cells = _cells(table.predicted_ids, table.predicted_pixels, table.predicted, iou)
    for cell in errors.missed:
        partners = tuple(predicted[true == cell].tolist())
        yield CellEvent(image, "missed", (cell,), partners, *true_cells[cell])
    for cell in errors.false:
        partners = tuple(true[predicted == cell].tolist())
        yield CellEvent(image, "false", partners, (cell,), *predicted_cells[cell])
    for cell, pieces in errors.split.items():
        yield CellEvent(image, "split", (cell,), pieces, *true_cells[cell])
    for cell, parts in errors.merged.items():
        yield CellEvent(image, "merged", parts, (cell,), *predicted_cells[cell])
    explained_true = {*errors.split, *itertools.chain(*errors.merged.values())}
    explained_predicted = {*errors.merged, *itertools.chain(*errors.split.values())}
    for pair in matches(table).tolist():
        first, second = int(true[pair]), int(predicted[pair])
        if first not in explained_true and second not in explained_predicted:
            yield CellEvent(image, "matched", (first,), (second,), true_cells[first][0], float(iou[pair]))


def _cells(ids: Ids, pixels: Ids, index: Ids, iou: npt.NDArray[np.float64]) -> dict[int, tuple[int, float]]:
    """The pixels of each cell, and its largest IoU with another, 0 without one."""
    largest = np.zeros(len(ids))
    np.maximum.at(largest, index, iou)
    return dict(zip(ids.tolist(), zip(pixels.tolist(), largest.tolist(), strict=True), strict=True))


@dataclass
class CellSurvey:
    """The cells of several images, added one by one; of the crops only the worst `most` of each kind are kept."""

    most: int
    ignore_border: int = 0
    true_diameters: list[float] = field(default_factory=list)
    predicted_diameters: list[float] = field(default_factory=list)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """True and predicted cells by image."""
    kinds: Counter[str] = field(default_factory=Counter)
    """How many cells there are of each of `KINDS`."""
    crops: dict[str, list[CellCrop]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """By kind, the worst first."""

    def add(self, sample: Sample, predicted: Ids) -> None:
        """The cells of an image, whose map `instances` has the true ones, beside those predicted (H, W)."""
        true = np.where(sample.labels.numpy() == IGNORE, IGNORE, sample.maps["instances"].numpy())
        table = overlap(true, predicted, self.ignore_border)
        self.true_diameters += _diameters(table.true_pixels)
        self.predicted_diameters += _diameters(table.predicted_pixels)
        self.counts[sample.name] = len(table.true_ids), len(table.predicted_ids)
        limits = pictures.limits_of(sample.image.numpy())
        of_kind: dict[str, list[CellEvent]] = {kind: [] for kind in KINDS}
        for event in events(sample.name, table):
            self.kinds[event.kind] += 1
            if event.iou < 1:
                of_kind[event.kind].append(event)
        for kind, found in of_kind.items():
            worst = heapq.nlargest(self.most, found, key=lambda event: event.severity)
            crops = [*self.crops[kind], *(_crop(event, sample, limits, true, predicted) for event in worst)]
            self.crops[kind] = heapq.nlargest(self.most, crops, key=lambda crop: crop.event.severity)

    @property
    def worst(self) -> list[CellCrop]:
        """At most `most` crops by kind, as many of each error as can be; a third is kept for matched cells."""
        matched = self.crops["matched"][: self.most // 3]
        turns = itertools.zip_longest(*(self.crops[kind] for kind in ERRORS))
        errors = [crop for turn in turns for crop in turn if crop][: self.most - len(matched)]
        return [*sorted(errors, key=lambda crop: ERRORS.index(crop.event.kind)), *matched]


def _diameters(pixels: Sequence[int] | Ids) -> list[float]:
    """The diameters of circles of the same areas, in pixels."""
    return np.sqrt(4 * np.asarray(pixels) / np.pi).tolist()  # type: ignore[no-any-return]


MARGIN = 0.5
"""Of the larger side of the cells, shown on each side of them."""

LEAST_SIDE = 40
"""Pixels of a crop, where the image has as many."""


def _crop(event: CellEvent, sample: Sample, limits: Limits, true: Ids, predicted: Ids) -> CellCrop:
    """A square about the cell that the event is named for, and about the others within it."""
    inside = np.isin(true, event.true) if event.kind in ("missed", "split") else np.isin(predicted, event.predicted)
    if event.kind in ("matched", "merged"):
        inside |= np.isin(true, event.true)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = max(LEAST_SIDE, round(extent * (1 + 2 * MARGIN)))
    top, left = (
        int(np.clip((ends[0] + ends[-1] + 1 - side) // 2, 0, max(0, length - side)))
        for ends, length in zip((rows, columns), true.shape, strict=True)
    )
    window = slice(top, top + side), slice(left, left + side)
    image = sample.image.numpy()[:, *window].copy()
    return CellCrop(event, image, limits, np.array(true[window]), np.array(predicted[window]))
