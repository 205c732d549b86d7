"""A survey of single cells: which are missed, false, split, merged or badly matched in which image, and their sizes."""

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
from yeastexp.metrics.matching import Overlap, annotated_cells, matches, overlap
from yeastexp.sample import Sample

Ids = npt.NDArray[np.integer[Any]]

ERRORS = ("missed", "false", "split", "merged")
KINDS = (*ERRORS, "matched")
"""The kinds of events; a matched cell has a partner at an IoU of at least one half."""


@dataclass(frozen=True)
class CellEvent:
    """An error or a match of a cell, with the ids of the true and predicted cells that take part in it."""

    image: str
    kind: str
    """One of `KINDS`."""
    true: tuple[int, ...]
    predicted: tuple[int, ...]
    pixels: int
    """The area of the cell that the event is about, or of the true one of a match."""
    iou: float
    """The IoU of a match, else the cell's largest IoU with any cell of the other image."""

    @property
    def severity(self) -> tuple[float, float]:
        """A key that sorts events of one kind: errors by the cell's size, matches by a low IoU."""
        return (-self.iou, self.pixels) if self.kind == "matched" else (self.pixels, -self.iou)


@dataclass(frozen=True)
class CellCrop:
    """An event with the image (C, h, w) and the ids (h, w) around it, and the display limits of the whole image."""

    event: CellEvent
    image: npt.NDArray[np.float32]
    limits: Limits
    true: Ids
    predicted: Ids


def events(image: str, table: Overlap) -> Iterator[CellEvent]:
    """An event for each missed, false, split and merged cell, then for each matched pair without such an error."""
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
    """By id, the area of each cell and its largest IoU with a cell of the other image, 0 if it overlaps none."""
    largest = np.zeros(len(ids))
    np.maximum.at(largest, index, iou)
    return dict(zip(ids.tolist(), zip(pixels.tolist(), largest.tolist(), strict=True), strict=True))


@dataclass
class CellSurvey:
    """The cells of several images, added image by image; of each kind only the `most` worst crops are kept."""

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
        """Add an image: the true cells are in its map `instances`, the predicted ones in `predicted`, (H, W)."""
        true = annotated_cells(sample.maps["instances"], sample.labels).numpy()
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
        # Only events that can be among the worst of all images are cropped: crops copy pixels, events are numbers.
        for kind, found in of_kind.items():
            worst = heapq.nlargest(self.most, found, key=lambda event: event.severity)
            crops = [*self.crops[kind], *(_crop(event, sample, limits, true, predicted) for event in worst)]
            self.crops[kind] = heapq.nlargest(self.most, crops, key=lambda crop: crop.event.severity)

    @property
    def worst(self) -> list[CellCrop]:
        """At most `most` crops sorted by kind: up to a third of matched cells, and an even share of each error."""
        matched = self.crops["matched"][: self.most // 3]
        turns = itertools.zip_longest(*(self.crops[kind] for kind in ERRORS))
        errors = [crop for turn in turns for crop in turn if crop][: self.most - len(matched)]
        return [*sorted(errors, key=lambda crop: ERRORS.index(crop.event.kind)), *matched]


def _diameters(pixels: Sequence[int] | Ids) -> list[float]:
    """The diameters of circles of the same areas, in pixels."""
    return np.sqrt(4 * np.asarray(pixels) / np.pi).tolist()  # type: ignore[no-any-return]


MARGIN = 0.5
"""The margin around the cells of a crop, as a share of their larger side."""

LEAST_SIDE = 40
"""The least side of a crop in pixels, if the image has as many."""


def _crop(event: CellEvent, sample: Sample, limits: Limits, true: Ids, predicted: Ids) -> CellCrop:
    """A square crop around the cell that the event is about, and around the true cells of a match or a merger."""
    # Not around all cells of the event: those that a missed or false cell overlaps a little may be far larger than it.
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
