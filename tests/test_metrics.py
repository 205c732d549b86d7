"""Scores against scikit-learn, and counts that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score

from yeastexp.metrics import Accuracy, IoU, confusion
from yeastexp.sample import IGNORE


def rows(metric: IoU | Accuracy, prediction: np.ndarray, truth: np.ndarray) -> list[float]:
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
