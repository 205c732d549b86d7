"""One-to-one matching of the cells of two label images by the pixels that they share.

A label image (H, W) holds integers: 0 is background, another number the id of a cell, whose pixels need not be
connected. Pixels whose ground truth is negative are unlabelled, and count as background in both images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from torch import Tensor

from yeastexp.sample import IGNORE

Labels = npt.NDArray[np.integer[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """The N true and M predicted cells in ascending order of ids, and the P pairs of them that share pixels."""

    true_ids: Ints
    """(N,)"""
    predicted_ids: Ints
    """(M,)"""
    true_pixels: Ints
    """The area of each true cell, (N,)."""
    predicted_pixels: Ints
    """The area of each predicted cell, (M,)."""
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
        """The indices of the pairs whose IoU is at least `percent` / 100."""
        # Compared as integers: a rounded quotient could miss an IoU that equals the threshold.
        return np.flatnonzero(100 * self.shared >= percent * self.union)


def annotated_cells(instances: Tensor, labels: Tensor) -> Tensor:
    """The ids (H, W) of a map `instances`, which has 0 where nobody annotated; IGNORE there, as in the labels."""
    return instances.masked_fill(labels == IGNORE, IGNORE)


def overlap(truth: Labels, predicted: Labels, ignore_border: int = 0) -> Overlap:
    """Tabulate the cells of two label images (H, W) and the pairs of them that share pixels.

    Cells with a pixel among the `ignore_border` outermost rows and columns are left out; of a pair with an IoU above
    one half both or neither, as its true cell says. Raises ValueError if the images differ in shape.
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
    # Were each image judged by itself, a true cell that is cut by the border would be left out while a prediction one
    # pixel shorter of it stayed, and counted as false (and the other way round, as missed). Above one half no cell has
    # two partners, so that the assignment below does not depend on the order of pairs.
    alike = 2 * whole.shared > whole.union
    predicted_kept[whole.predicted[alike]] = true_kept[whole.true[alike]]
    return _selected(whole, true_kept, predicted_kept)


def _table(truth: Labels, predicted: Labels) -> Overlap:
    """The overlap of all cells; neither image (H, W) has unlabelled pixels left."""
    true, found = truth.ravel(), predicted.ravel()
    # Sorting all pixels would take ten times as long as sorting the runs of equal pairs along the rows. A run may go on
    # into the next row: only its length is counted. The slice drops the first start of an image without pixels.
    starts = np.flatnonzero((true[1:] != true[:-1]) | (found[1:] != found[:-1])) + 1
    starts = np.concatenate([[0], starts])[: true.size]
    lengths = np.diff(starts, append=true.size)
    true_ids, true_index = np.unique(true[starts], return_inverse=True)
    found_ids, found_index = np.unique(found[starts], return_inverse=True)
    # Pairs are numbered by the indices of ids, not by the ids: a product of large ids would overflow.
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
    """The ids with a pixel among the `px` outermost rows or columns, background included."""
    strips = labels[:px], labels[-px:], labels[:, :px], labels[:, -px:]
    return np.unique(np.concatenate([strip.ravel() for strip in strips]))


def _selected(table: Overlap, true_kept: Bools, predicted_kept: Bools) -> Overlap:
    """The overlap restricted to the cells that are kept, (N,) and (M,), and to pairs of two of these."""
    both = true_kept[table.true] & predicted_kept[table.predicted]
    # The running count of kept cells, less one, is a kept cell's index in the shorter table.
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
    """The indices of the matched pairs, ascending: a maximum matching at IoUs of at least `percent` / 100.

    Of the matchings with as many pairs, it is the one with the largest sum of IoUs (Kuhn 1955).
    """
    candidates = table.reaching(percent)
    # Above one half no cell has two partners: each of them would hold more than half of the cell's pixels.
    if percent > 50 or not len(candidates):
        return candidates
    # At one half and below only the few cells with several partners have to be assigned. Any other pair stands alone,
    # so that each largest matching includes it.
    contested = np.zeros(len(candidates), dtype=bool)
    for cells in (table.true[candidates], table.predicted[candidates]):
        contested |= np.bincount(cells)[cells] > 1
    iou = table.iou
    groups = _groups(table, candidates[contested])
    return np.sort(np.concatenate([candidates[~contested], *(_assigned(table, iou, group) for group in groups)]))


def f1(tables: Iterable[Overlap]) -> float:
    """The F1 score of detection pooled over images, 2 TP / (N + M), at an IoU of at least 0.51; 0 without cells."""
    listed = list(tables)
    cells = sum(len(table.true_ids) + len(table.predicted_ids) for table in listed)
    return 2 * sum(len(matches(table, 51)) for table in listed) / cells if cells else 0.0


def _groups(table: Overlap, pairs: Ints) -> Iterator[Ints]:
    """Split pairs into groups that have no cell in common, so that assigning them needs no matrix of all cells."""
    if not len(pairs):
        return
    # Groups are the connected components of the bipartite graph whose nodes are the true, then the predicted cells.
    cells = len(table.true_ids) + len(table.predicted_ids)
    true, predicted = table.true[pairs], table.predicted[pairs] + len(table.true_ids)
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (true, predicted)), shape=(cells, cells))
    group = connected_components(graph, directed=False)[1][true]
    order = np.argsort(group, kind="stable")
    yield from np.split(pairs[order], np.flatnonzero(np.diff(group[order])) + 1)


def _assigned(table: Overlap, iou: npt.NDArray[np.float64], pairs: Ints) -> Ints:
    """The indices of the matched pairs of one group of cells with several partners."""
    rows, row = np.unique(table.true[pairs], return_inverse=True)
    columns, column = np.unique(table.predicted[pairs], return_inverse=True)
    # SciPy demands a full matching, which the candidates alone need not allow: every other pair of cells is a link as
    # well, and is dropped afterwards. Links weigh 1, as zeros would not be stored in a sparse matrix; a candidate
    # weighs 1 more, and the IoUs of all candidates that can be chosen together add at most one half. So no sum of IoUs
    # ever outweighs one more match.
    weight = np.ones((len(rows), len(columns)))
    weight[row, column] += 1 + iou[pairs] / (2 * min(weight.shape))
    index = np.full(weight.shape, -1)
    index[row, column] = pairs
    # Not scipy.optimize's, whose import takes a sixth of a second of every command that trains.
    chosen = index[min_weight_full_bipartite_matching(csr_array(weight), maximize=True)]
    return np.asarray(chosen[chosen >= 0])


__all__ = ["Overlap", "annotated_cells", "f1", "matches", "overlap"]
