"""Cells of two label images matched one to one, by the pixels that they share.

A label image (H, W) holds integers: 0 is background, another number the id of a cell, whose pixels need not be
connected. Pixels whose ground truth is negative are unlabelled, and taken out of both images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

Labels = npt.NDArray[np.integer[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """The N true and M predicted cells in the order of their ids, and the P pairs that share pixels."""

    true_ids: Ints
    """(N,)"""
    predicted_ids: Ints
    """(M,)"""
    true_pixels: Ints
    """(N,)"""
    predicted_pixels: Ints
    """(M,)"""
    true: Ints
    """The index of the true cell of each pair, (P,)."""
    predicted: Ints
    """The index of the predicted cell of each pair, (P,)."""
    shared: Ints
    """The pixels that each pair shares, (P,)."""

    @property
    def union(self) -> Ints:
        """The pixels that are in either cell of each pair, (P,)."""
        return self.true_pixels[self.true] + self.predicted_pixels[self.predicted] - self.shared

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union of each pair, (P,)."""
        return self.shared / self.union

    def reaching(self, percent: int) -> Ints:
        """The indices of the pairs whose IoU is at least so many per cent; in whole numbers, so that ties are exact."""
        return np.flatnonzero(100 * self.shared >= percent * self.union)


def overlap(truth: Labels, predicted: Labels, ignore_border: int = 0) -> Overlap:
    """The cells of two label images (H, W) and the pairs that share pixels.

    Cells with a pixel among the `ignore_border` outermost rows and columns are left out. A pair with an IoU above one
    half goes by its true cell: a cell cut by the border is not to be a false one for being drawn a pixel shorter.
    """
    if truth.ndim != 2 or truth.shape != predicted.shape:
        raise ValueError(f"label images have to be (H, W) and alike, not {truth.shape} and {predicted.shape}")
    unlabelled = truth < 0
    if unlabelled.any():
        truth, predicted = (np.where(unlabelled, 0, labels) for labels in (truth, predicted))
    whole = _table(truth, predicted)
    if not ignore_border:
        return whole
    true_kept = ~np.isin(whole.true_ids, _near_border(truth, ignore_border))
    predicted_kept = ~np.isin(whole.predicted_ids, _near_border(predicted, ignore_border))
    alike = 2 * whole.shared > whole.union
    predicted_kept[whole.predicted[alike]] = true_kept[whole.true[alike]]
    return _selected(whole, true_kept, predicted_kept)


def _table(truth: Labels, predicted: Labels) -> Overlap:
    true, found = truth.ravel(), predicted.ravel()
    # Sorting all pixels would take ten times as long as sorting the runs of equal pairs along the rows.
    starts = np.flatnonzero((true[1:] != true[:-1]) | (found[1:] != found[:-1])) + 1
    starts = np.concatenate([[0], starts])[: true.size]
    lengths = np.diff(starts, append=true.size)
    true_ids, true_index = np.unique(true[starts], return_inverse=True)
    found_ids, found_index = np.unique(found[starts], return_inverse=True)
    pairs, pair = np.unique(true_index * len(found_ids) + found_index, return_inverse=True)
    of_true, of_found = np.divmod(pairs, max(1, len(found_ids)))
    whole = Overlap(
        true_ids.astype(np.int64),
        found_ids.astype(np.int64),
        _sums(true_index, lengths, len(true_ids)),
        _sums(found_index, lengths, len(found_ids)),
        of_true,
        of_found,
        _sums(pair, lengths, len(pairs)),
    )
    return _selected(whole, whole.true_ids > 0, whole.predicted_ids > 0)


def _sums(index: Ints, pixels: Ints, length: int) -> Ints:
    return np.bincount(index, pixels, minlength=length).astype(np.int64)  # float64 is exact up to 2⁵³ pixels


def _near_border(labels: Labels, px: int) -> Labels:
    strips = labels[:px], labels[-px:], labels[:, :px], labels[:, -px:]
    return np.unique(np.concatenate([strip.ravel() for strip in strips]))


def _selected(table: Overlap, true_kept: Bools, predicted_kept: Bools) -> Overlap:
    """The cells that are kept, (N,) and (M,), with the pairs of two such cells."""
    both = true_kept[table.true] & predicted_kept[table.predicted]
    return Overlap(
        table.true_ids[true_kept],
        table.predicted_ids[predicted_kept],
        table.true_pixels[true_kept],
        table.predicted_pixels[predicted_kept],
        (np.cumsum(true_kept) - 1)[table.true[both]],
        (np.cumsum(predicted_kept) - 1)[table.predicted[both]],
        table.shared[both],
    )


def matches(table: Overlap, percent: int = 50) -> Ints:
    """The indices of the pairs that are matched: as many as can be, each cell once, at an IoU of `percent` or more.

    Of equally many, those with the largest sum of IoUs. Above one half no cell has two partners, for each would hold
    more than half of it; at one half and below, cells that have several are assigned (Kuhn 1955).
    """
    candidates = table.reaching(percent)
    if percent > 50 or not len(candidates):
        return candidates
    contested = np.zeros(len(candidates), dtype=bool)
    for cells in (table.true[candidates], table.predicted[candidates]):
        contested |= np.bincount(cells)[cells] > 1
    iou = table.iou
    groups = _groups(table, candidates[contested])
    return np.sort(np.concatenate([candidates[~contested], *(_assigned(table, iou, group) for group in groups)]))


def f1(tables: Iterable[Overlap]) -> float:
    """F1 score of detection over images, 2 TP / (N + M), at an IoU above one half; 0 without cells."""
    listed = list(tables)
    cells = sum(len(table.true_ids) + len(table.predicted_ids) for table in listed)
    return 2 * sum(len(matches(table, 51)) for table in listed) / cells if cells else 0.0


def _groups(table: Overlap, pairs: Ints) -> Iterator[Ints]:
    """The pairs in groups that have no cell in common, so that no matrix of all cells is needed."""
    if not len(pairs):
        return
    cells = len(table.true_ids) + len(table.predicted_ids)
    true, predicted = table.true[pairs], table.predicted[pairs] + len(table.true_ids)
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (true, predicted)), shape=(cells, cells))
    group = connected_components(graph, directed=False)[1][true]
    order = np.argsort(group, kind="stable")
    yield from np.split(pairs[order], np.flatnonzero(np.diff(group[order])) + 1)


def _assigned(table: Overlap, iou: npt.NDArray[np.float64], pairs: Ints) -> Ints:
    """The best assignment of cells that compete: a match weighs 1, and all IoUs together at most one half."""
    rows, row = np.unique(table.true[pairs], return_inverse=True)
    columns, column = np.unique(table.predicted[pairs], return_inverse=True)
    weight = np.ones((len(rows), len(columns)))  # pairs that do not match are links as well: a matching has to be full
    weight[row, column] += 1 + iou[pairs] / (2 * min(weight.shape))
    index = np.full(weight.shape, -1)
    index[row, column] = pairs
    # Not scipy.optimize's, whose import takes a sixth of a second of every command that trains.
    chosen = index[min_weight_full_bipartite_matching(csr_array(weight), maximize=True)]
    return np.asarray(chosen[chosen >= 0])


__all__ = ["Overlap", "f1", "matches", "overlap"]
