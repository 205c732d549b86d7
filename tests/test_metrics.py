"""Scores against scikit-learn, and counts that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from yeastexp.metrics import (
    Accuracy,
    BoundaryF1,
    DeadCellFalsePositives,
    Dice,
    IoU,
    PerImageMetric,
    Precision,
    Recall,
    confusion,
)
from yeastexp.sample import IGNORE


def rows(metric: PerImageMetric, prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    metric.reset()
    metric.update((torch.from_numpy(prediction), torch.from_numpy(truth), {}))
    return list(metric.compute().rows[0].tolist())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (16, 16), (33, 21)])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_as_scikit_learn_scores(size: tuple[int, int], classes: int, seed: int) -> None:
    source = np.random.default_rng(seed)
    truth, prediction = source.integers(0, classes, (2, *size))
    (found,) = rows(Accuracy(classes), prediction, truth)
    assert found == accuracy_score(truth.ravel(), prediction.ravel())
    flat = truth.ravel(), prediction.ravel()
    wanted = jaccard_score(*flat, labels=list(range(classes)), average=None, zero_division=0)
    wanted[~np.isin(np.arange(classes), flat)] = np.nan  # which scikit-learn would count as 0
    np.testing.assert_array_equal(rows(IoU(classes), prediction, truth), wanted)


@pytest.mark.parametrize(
    ("truth", "prediction", "wanted"),
    [
        (0, 0, [1.0, float("nan")]),
        (1, 1, [float("nan"), 1.0]),
        (0, 1, [0.0, 0.0]),
        (1, 0, [0.0, 0.0]),
    ],
)
def test_degenerate_maps(truth: int, prediction: int, wanted: list[float]) -> None:
    maps = [np.full((4, 4), value) for value in (prediction, truth)]
    np.testing.assert_array_equal(rows(IoU(2), *maps), wanted)


@pytest.mark.parametrize("shift", range(12))
def test_a_shifted_rectangle_has_exact_counts(shift: int) -> None:
    truth, prediction = torch.zeros(2, 30, 40, dtype=torch.int64)
    truth[10:20, 5:15] = 1
    prediction[10:20, 5 + shift : 15 + shift] = 1
    both = 10 * max(0, 10 - shift)
    assert confusion(prediction, truth, 2).tolist() == [[1200 - 200 + both, 100 - both], [100 - both, both]]
    assert IoU(2).score(IoU(2).counts(prediction, truth))[1] == both / (200 - both)


def test_a_grown_disc_has_the_ratio_of_the_areas() -> None:
    rows_, columns = np.mgrid[-40:41, -40:41]
    small, large = (rows_**2 + columns**2 <= radius**2 for radius in (20, 25))
    found = rows(IoU(2), large.astype(int), small.astype(int))[1]
    assert found == small.sum() / large.sum()
    assert found == pytest.approx((20 / 25) ** 2, abs=0.01)


def test_pooled_and_per_image_weigh_images_differently() -> None:
    metric = IoU(2)
    metric.reset()
    one, other = torch.zeros(2, 1, 8, dtype=torch.int64)
    one[0, 0] = 1
    metric.update((one, one, {}))  # one of one
    other[0, :] = 1
    wrong = other.clone()
    wrong[0, :4] = 0
    metric.update((wrong, other, {}))  # four of eight
    found = metric.compute()
    assert found.per_image[1] == (1 + 0.5) / 2
    assert found.pooled[1] == 5 / 9


def test_ignored_pixels_are_no_part_of_any_count() -> None:
    truth, prediction = torch.tensor([[0, 1, IGNORE, IGNORE]]), torch.tensor([[0, 0, 1, 0]])
    assert confusion(prediction, truth, 2).tolist() == [[1, 0], [1, 0]]
    assert Accuracy(2).counts(prediction, truth).tolist() == [1, 2]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("metric", "peer"), [(Dice(3), f1_score), (Precision(3), precision_score), (Recall(3), recall_score)]
)
def test_ratios_of_a_class_as_scikit_learn_has_them(metric: PerImageMetric, peer: Any, seed: int) -> None:
    truth, prediction = np.random.default_rng(seed).integers(0, 3, (2, 20, 30))
    wanted = peer(truth.ravel(), prediction.ravel(), labels=[0, 1, 2], average=None)
    np.testing.assert_allclose(rows(metric, prediction, truth), wanted, rtol=1e-14)


def square(size: int, at: int, side: int) -> np.ndarray:
    made = np.zeros((size, size), np.int64)
    made[at : at + side, at : at + side] = 1
    return made


@pytest.mark.parametrize(
    ("shift", "tolerance", "wanted"), [(0, 0.0, 1.0), (1, 1.0, 1.0), (2, 2.0, 1.0), (30, 5.0, 0.0)]
)
def test_boundaries_of_shifted_squares(shift: int, tolerance: float, wanted: float) -> None:
    truth, prediction = square(80, 10, 20), np.roll(square(80, 10, 20), shift, axis=1)
    assert rows(BoundaryF1(2, tolerance_px=tolerance), prediction, truth)[1] == wanted


def test_a_boundary_by_hand() -> None:
    """A square of side 3 and one grown by a pixel: 8 and 16 boundary pixels, within √2, four not within 1."""
    truth, prediction = square(15, 6, 3), square(15, 5, 5)
    assert BoundaryF1(2, 1.5).counts(*map(torch.from_numpy, (prediction, truth))).reshape(4, 2)[:, 1].tolist() == [
        16,
        16,
        8,
        8,
    ]
    assert BoundaryF1(2, 1.0).counts(*map(torch.from_numpy, (prediction, truth))).reshape(4, 2)[:, 1].tolist() == [
        12,
        16,
        8,
        8,
    ]


def test_the_border_of_the_image_is_no_boundary() -> None:
    full = np.ones((5, 5), np.int64)
    assert np.isnan(rows(BoundaryF1(2), full, full)).all()


def test_what_is_unknown_makes_no_boundary() -> None:
    """A cell that is only annotated in part: its end of truth is no boundary, whatever is predicted beyond."""
    truth = torch.zeros(20, 20).long()
    truth[5:15, 5:15] = 1
    truth[:, 10:] = IGNORE
    for beyond in (0, 1):
        prediction = torch.where(truth == IGNORE, beyond, truth)
        counts = BoundaryF1(2, tolerance_px=0).counts(prediction, truth).reshape(4, 2)
        assert counts[:, 1].tolist() == [5 + 8 + 5] * 4  # top, left and bottom of the part with truth
        assert (counts[:2] == counts[2:]).all()


def test_the_mean_over_images_is_the_same_bits_in_every_order() -> None:
    source = np.random.default_rng(0)
    images = [tuple(torch.from_numpy(one) for one in source.integers(0, 3, (2, 9, 9))) for _ in range(50)]
    metric = IoU(3)
    seen = set()
    for _ in range(20):
        metric.reset()
        for index in source.permutation(50):
            metric.update((*images[index], {}))
        seen.add(tuple(metric.compute().per_image.tolist()))
    assert len(seen) == 1


def test_an_image_without_a_class_is_left_out_of_its_mean() -> None:
    metric = IoU(3)
    metric.reset()
    empty = torch.zeros(4, 4).long()
    half = empty.clone()
    half[:2] = 1
    for prediction, truth in ((empty, empty), (half, half), (empty, half)):
        metric.update((prediction, truth, {}))
    found = metric.compute()
    assert found.per_image[:2].tolist() == [(1 + 1 + 0.5) / 3, 0.5] and bool(found.per_image[2].isnan())
    assert found.pooled[:2].tolist() == [(16 + 8 + 8) / 40, 8 / 16] and bool(found.pooled[2].isnan())


def test_dead_cells_in_part_without_truth() -> None:
    dead = torch.tensor([[1, 1, 1, 0, 2, 2]])
    labels = torch.tensor([[0, IGNORE, IGNORE, 0, IGNORE, IGNORE]])
    counts = DeadCellFalsePositives(2).counts(torch.tensor([[1, 0, 0, 0, 1, 1]]), labels, dead=dead)
    assert counts.tolist() == [1, 1]  # of the second nothing is known
    none = DeadCellFalsePositives(2).counts(torch.ones(1, 6).long(), torch.zeros(1, 6).long(), dead=dead * 0)
    assert none.tolist() == [0, 0] and bool(DeadCellFalsePositives(2).score(none).isnan())


def test_dead_cells_taken_for_live() -> None:
    dead = torch.zeros(4, 12, dtype=torch.int64)
    dead[:, 0:3], dead[:, 4:7], dead[:, 8:11] = 1, 2, 9
    prediction = torch.zeros_like(dead)
    prediction[:, 0:2] = 1  # two thirds of the first
    prediction[:2, 4:7] = 1  # half of the second is not most of it
    metric = DeadCellFalsePositives(2)
    assert metric.maps == ("dead",)
    counts = metric.counts(prediction, torch.zeros_like(dead), dead=dead)
    assert counts.tolist() == [1, 3] and float(metric.score(counts)) == 1 / 3
