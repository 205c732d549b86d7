"""Overlaps and matches against sets of pixels and fractions, on label images with ties, holes and one-pixel cells."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from cell_sets import best, cells, ious, scene

from yeastexp.metrics.matching import Labels, matches, overlap


def without_border(labels: Labels, px: int) -> set[int]:
    rows, columns = np.indices(labels.shape)
    height, width = labels.shape
    near = np.minimum.reduce([rows, columns, height - 1 - rows, width - 1 - columns]) < px
    return set(labels[labels > 0].tolist()) - set(labels[near].tolist())


@pytest.mark.parametrize("seed", range(60))
def test_the_table_holds_the_pixels_of_cells_and_pairs(seed: int) -> None:
    truth, predicted = scene(seed)
    table, true, found = overlap(truth, predicted), cells(truth, truth), cells(predicted, truth)
    assert dict(zip(table.true_ids.tolist(), table.true_pixels.tolist(), strict=True)) == {
        cell: len(true[cell]) for cell in sorted(true)
    }
    assert dict(zip(table.predicted_ids.tolist(), table.predicted_pixels.tolist(), strict=True)) == {
        cell: len(found[cell]) for cell in sorted(found)
    }
    pairs = zip(table.true_ids[table.true].tolist(), table.predicted_ids[table.predicted].tolist(), strict=True)
    wanted = {(a, b): len(true[a] & found[b]) for a in true for b in found if true[a] & found[b]}
    assert dict(zip(pairs, table.shared.tolist(), strict=True)) == wanted


@pytest.mark.parametrize("seed", range(150))
def test_as_many_matches_as_any_way_of_matching_has(seed: int) -> None:
    table = overlap(*scene(seed))
    pairs = ious(*scene(seed))
    for percent in (10, 30, *range(50, 100, 5)):
        found = matches(table, percent)
        assert len(set(table.true[found])) == len(set(table.predicted[found])) == len(found)
        number, total = best(pairs, Fraction(percent, 100))
        assert len(found) == number
        assert table.iou[found].sum() == pytest.approx(float(total), abs=1e-12)


def test_halves_are_matched_on_either_side() -> None:
    """A true cell of two halves and two true halves of a cell: two matches, though three cells of each have a pair."""
    table = overlap(np.array([[1, 1, 2, 3]]), np.array([[1, 2, 3, 3]]))
    assert table.iou.tolist() == [0.5] * 4
    assert len(matches(table)) == 2 and not len(matches(table, 55))


def test_an_assignment_takes_fewer_overlaps_for_more_matches() -> None:
    """The best pair first would leave the other true cell without a partner."""
    truth = np.array([[1, 1, 1, 1, 1, 2, 2]])
    predicted = np.array([[3, 4, 4, 4, 4, 4, 4]])
    table = overlap(truth, predicted)
    assert table.iou.tolist() == [1 / 5, 4 / 7, 2 / 6]
    assert matches(table, 20).tolist() == [0, 2]
    assert matches(table, 50).tolist() == [1]


@pytest.mark.parametrize("px", [1, 2, 3])
@pytest.mark.parametrize("seed", range(40))
def test_cells_near_the_border_are_left_out(seed: int, px: int) -> None:
    truth, predicted = scene(seed)
    kept = without_border(np.where(truth < 0, 0, truth), px)
    found_kept = without_border(np.where(truth < 0, 0, predicted), px)
    for (true, found), iou in ious(truth, predicted).items():
        if iou > Fraction(1, 2):
            found_kept = found_kept | {found} if true in kept else found_kept - {found}
    table = overlap(truth, predicted, px)
    assert table.true_ids.tolist() == sorted(kept)
    assert table.predicted_ids.tolist() == sorted(found_kept)
    whole = overlap(truth, predicted)
    areas = dict(zip(whole.predicted_ids.tolist(), whole.predicted_pixels.tolist(), strict=True))
    assert table.predicted_pixels.tolist() == [areas[cell] for cell in table.predicted_ids.tolist()]
    pairs = set(zip(table.true_ids[table.true].tolist(), table.predicted_ids[table.predicted].tolist(), strict=True))
    assert pairs == {(a, b) for a, b in ious(truth, predicted) if a in kept and b in found_kept}


@pytest.mark.parametrize(
    ("true_from", "found_from", "kept"), [(0, 4, 0), (4, 0, 1), (0, 0, 0), (4, 4, 1), (3, 3, 1), (2, 2, 0)]
)
def test_a_matched_pair_goes_by_its_true_cell(true_from: int, found_from: int, kept: int) -> None:
    truth, predicted = np.zeros((2, 30, 30), np.int64)
    truth[10:20, true_from:20] = 1
    predicted[10:20, found_from:20] = 1
    table = overlap(truth, predicted, ignore_border=3)
    assert len(table.true_ids) == len(table.predicted_ids) == kept


@pytest.mark.parametrize("true_dtype", [np.uint8, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("found_dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_any_integers_and_any_ids(true_dtype: type, found_dtype: type) -> None:
    largest = np.iinfo(true_dtype).max, np.iinfo(found_dtype).max
    truth, predicted = np.array([[0, 0, largest[0]]], true_dtype), np.array([[0, largest[1], largest[1]]], found_dtype)
    table = overlap(truth, predicted)
    assert (table.true_ids.tolist(), table.predicted_ids.tolist()) == ([largest[0]], [largest[1]])
    assert (table.shared.tolist(), table.union.tolist()) == ([1], [2])


def test_images_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"alike, not \(3, 4\) and \(4, 3\)"):
        overlap(np.zeros((3, 4), int), np.zeros((4, 3), int))
