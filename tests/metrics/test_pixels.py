"""Scores against scikit-learn, and counts that are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score
from torch.utils.data import DataLoader, Dataset

from yeastexp.metrics.pixels import (
    Accuracy,
    BoundaryF1,
    DeadCellFalsePositives,
    Dice,
    IoU,
    PerImageMetric,
    Precision,
    Recall,
    confusion,
    most_likely,
)
from yeastexp.registry import KINDS
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


def degenerate(classes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction with something missing: a class, a kind of error, all but a pixel, or all knowledge."""
    source = np.random.default_rng(classes)
    some, other = source.integers(0, classes, (2, 13, 17))
    empty = np.zeros_like(some)
    holes = np.where(source.random(some.shape) < 0.5, IGNORE, some)
    pixel = np.full_like(some, IGNORE)
    pixel[5, 5] = classes - 1
    return {
        "empty truth": (empty, some),
        "empty prediction": (some, empty),
        "both empty": (empty, empty),
        "one class": (empty + classes - 1, empty + classes - 1),
        "one class for another": (empty + classes - 1, empty),
        "all right": (some, some),
        "all wrong": (some, (some + 1) % classes),
        "a class less in the prediction": (some, np.minimum(other, classes - 2)),
        "a class less in the truth": (np.minimum(some, classes - 2), other),
        "one pixel": (some[:1, :1], other[:1, :1]),
        "one row": (some[:1], other[:1]),
        "half unknown": (holes, other),
        "one pixel known": (pixel, other),
        "nothing known": (np.full_like(some, IGNORE), other),
    }


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("name", degenerate(2))
def test_degenerate_maps_as_scikit_learn_scores_them(name: str, classes: int) -> None:
    truth, prediction = degenerate(classes)[name]
    known = truth != IGNORE
    flat = truth[known], prediction[known]
    labels = list(range(classes))
    peers: dict[PerImageMetric, Any] = {Dice(classes): f1_score, Precision(classes): precision_score}
    peers |= {Recall(classes): recall_score, IoU(classes): jaccard_score}
    for metric, peer in peers.items():
        there = np.isin(labels, flat)  # scikit-learn counts classes that are nowhere as 0 unless it is told otherwise
        wanted = np.full(classes, np.nan)
        if known.any():
            found = peer(*flat, labels=labels, average=None, zero_division=0 if peer is jaccard_score else np.nan)
            wanted = np.where(there, found, np.nan)
        np.testing.assert_allclose(rows(metric, prediction, truth), wanted, rtol=1e-14, err_msg=type(metric).__name__)
    (found,) = rows(Accuracy(classes), prediction, truth)
    np.testing.assert_array_equal(found, accuracy_score(*flat) if known.any() else np.nan)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 5])
def test_pooled_scores_are_those_of_all_pixels_together(seed: int, classes: int) -> None:
    """Images of several sizes, pixels without truth among them, one of them wholly unknown."""
    source = np.random.default_rng(seed)
    sizes = [(1, 1), (9, 4), (30, 31), (6, 6)]
    pairs = [(source.integers(0, classes, size), source.integers(IGNORE, classes, size)) for size in sizes]
    pairs[-1][1][:] = IGNORE
    known = [truth != IGNORE for _, truth in pairs]
    together = [
        np.concatenate([pair[place][where] for pair, where in zip(pairs, known, strict=True)]) for place in (1, 0)
    ]
    for metric, peer in ((IoU(classes), jaccard_score), (Dice(classes), f1_score), (Accuracy(classes), accuracy_score)):
        for prediction, truth in pairs:
            metric.update((torch.from_numpy(prediction), torch.from_numpy(truth), {}))
        options = {} if peer is accuracy_score else {"average": None}
        found = metric.compute()
        np.testing.assert_allclose(found.pooled.numpy(), np.atleast_1d(peer(*together, **options)), rtol=1e-14)
        assert bool(found.rows[-1].isnan().all()) and not bool(found.per_image.isnan().any())


def disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:101, :121]
    return ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).astype(np.int64)


@pytest.mark.parametrize("radius", [20, 30.5])
@pytest.mark.parametrize("shift", [0, 1, 2, 5, 10, 25, 39, 41])
def test_a_shifted_disc_overlaps_itself_in_a_lens(radius: float, shift: int) -> None:
    """Exactly by counting rows of pixels, and about as the area 2 r² acos(d / 2r) - d / 2 · √(4r² - d²) of the lens."""
    truth, prediction = disc(50, 40, radius), disc(50, 40 + shift, radius)
    high = math.floor(radius)
    chords = [2 * math.floor(math.sqrt(radius**2 - row**2)) + 1 for row in range(-high, high + 1)]
    whole, both = sum(chords), sum(max(0, chord - shift) for chord in chords)
    assert confusion(*map(torch.from_numpy, (prediction, truth)), 2)[1].tolist() == [whole - both, both]
    assert rows(IoU(2), prediction, truth)[1] == both / (2 * whole - both)
    assert rows(Dice(2), prediction, truth)[1] == both / whole
    assert rows(Accuracy(2), prediction, truth) == [(truth.size - 2 * (whole - both)) / truth.size]
    half = min(1.0, shift / (2 * radius))
    lens = 2 * radius**2 * (math.acos(half) - half * math.sqrt(1 - half**2))
    assert rows(Dice(2), prediction, truth)[1] == pytest.approx(lens / (math.pi * radius**2), abs=0.02)


class Maps(Dataset[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Images as an answer to a data set would give them: number, prediction, labels, and dead cells."""

    def __len__(self) -> int:
        return 17

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]:
        source = np.random.default_rng(index)
        prediction, labels, dead = (source.integers(low, 3, (190, 191)) for low in (0, IGNORE, 0))
        return index, *(torch.from_numpy(one) for one in (prediction, labels, dead))


@pytest.mark.parametrize("name", list(KINDS["metric"]))
def test_the_same_bits_for_any_batch_size_order_workers_and_threads(name: str) -> None:
    seen = []
    order = np.random.default_rng(1).permutation(17).tolist()
    ways = ((1, None, 0, 1), (4, order, 0, 2), (17, None, 1, 1), (5, order[::-1], 2, 2))
    for batch, sampler, workers, threads in ways:
        torch.set_num_threads(threads)
        one = KINDS["metric"][name](3)
        loader = DataLoader(Maps(), batch_size=batch, sampler=sampler, num_workers=workers)
        places: list[int] = []
        for numbers, *images in loader:
            places += numbers.tolist()
            for prediction, labels, dead in zip(*images, strict=True):
                one.update((prediction, labels, {"dead": dead, "instances": dead, "predicted_instances": prediction}))
        found = one.compute()
        back = torch.argsort(torch.tensor(places))
        assert sorted(places) == list(range(17))
        seen.append([found.per_image, found.pooled, found.rows[back], found.counts[back]])
    for others in seen[1:]:
        assert all(torch.equal(one, other) for one, other in zip(seen[0], others, strict=True))


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
    large = torch.where(dead == 9, 1 << 40, dead)
    assert metric.counts(prediction, torch.zeros_like(dead), dead=large).tolist() == [1, 3]
    assert metric.counts(prediction, torch.zeros_like(dead), dead=-dead).tolist() == [0, 0]


@pytest.mark.parametrize("classes", [2, 15, 16, 300])
def test_pairs_are_counted_whatever_the_number_of_classes(classes: int) -> None:
    """15 is the most whose pairs fit a byte."""
    source = np.random.default_rng(classes)
    prediction, truth = source.integers(0, classes, (2, 60, 70))
    truth[:5] = IGNORE
    wanted = np.zeros((classes, classes), int)
    np.add.at(wanted, (truth[5:], prediction[5:]), 1)
    for integers in (torch.int8, torch.int64) if classes < 128 else (torch.int64,):
        found = confusion(torch.from_numpy(prediction), torch.from_numpy(truth).to(integers), classes)
        assert found.dtype == torch.int64 and np.array_equal(found, wanted)


@pytest.mark.parametrize("classes", [1, 2, 3, 7])
def test_the_most_likely_class_is_argmax(classes: int) -> None:
    logits = torch.randn(classes, 30, 40, generator=torch.Generator().manual_seed(0))
    logits[:, :5] = logits[:, :5].round()  # ties: the first wins
    logits[-1, 0, :3] = torch.tensor([torch.inf, -torch.inf, -0.0])
    found = most_likely(logits)
    assert found.dtype == torch.int64 and torch.equal(found, logits.argmax(dim=0))


@pytest.mark.parametrize(
    ("rows", "classes", "row"),
    [
        (["all"], ["background", "cell"], "all"),
        (["background", "cell", "mean"], ["background", "cell"], "cell"),
        (["background", "bud", "cell", "mean"], ["background", "bud", "cell"], "mean"),
    ],
)
def test_which_row_speaks_for_a_metric(rows: list[str], classes: list[str], row: str) -> None:
    assert IoU(len(classes)).headline(rows, classes) == row


def test_a_metric_that_says_nothing_of_its_scores_has_no_bounds() -> None:
    assert PerImageMetric(2).bounds == (-math.inf, math.inf)
