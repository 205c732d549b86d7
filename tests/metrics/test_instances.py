"""Metrics of cells against sets of pixels, and on discs and squares whose scores are known."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from cell_sets import best, cells, ious, scene

from yeastexp.metrics.instances import (
    BILLION,
    PERCENTS,
    AveragePrecision,
    CellErrors,
    Count,
    InstanceMetric,
    PanopticQuality,
    Seg,
    average_precision,
    cell_errors,
    count,
    panoptic_quality,
    seg,
)
from yeastexp.metrics.matching import Labels, overlap
from yeastexp.metrics.pixels import Scores
from yeastexp.metrics.summary import pooled_of, rows_of, summarise, tags
from yeastexp.sample import IGNORE

METRICS = (AveragePrecision, PanopticQuality, Seg, Count)


def scored(metric: InstanceMetric, *images: tuple[Labels, Labels]) -> Scores:
    metric.reset()
    for truth, predicted in images:
        instances, found = torch.from_numpy(truth).long(), torch.from_numpy(predicted).long()
        labels = (instances > 0).long().masked_fill(instances < 0, IGNORE)
        metric.update((labels, labels, {"instances": instances.clamp_min(0), "predicted_instances": found}))
    return metric.compute()


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


@pytest.mark.parametrize("seed", range(150))
def test_as_sets_of_pixels_have_it(seed: int) -> None:
    truth, predicted = scene(seed)
    table, pairs = overlap(truth, predicted), ious(truth, predicted)
    true, found = cells(truth, truth), cells(predicted, truth)
    detections = average_precision(table)
    hits = [best(pairs, Fraction(percent, 100))[0] for percent in PERCENTS]
    assert detections.true_positives.tolist() == hits
    assert detections.false_positives.tolist() == [len(found) - number for number in hits]
    assert detections.false_negatives.tolist() == [len(true) - number for number in hits]
    shares = [Fraction(number, len(true) + len(found) - number) if true or found else math.nan for number in hits]
    np.testing.assert_array_equal(detections.average_precision, np.array(shares, float))

    halves = [iou for iou in pairs.values() if iou > Fraction(1, 2)]
    quality = panoptic_quality(table)
    assert quality.iou == sum(half_up(BILLION * iou) for iou in halves)
    wanted = [len(halves), len(found) - len(halves), len(true) - len(halves)]
    assert [quality.true_positives, quality.false_positives, quality.false_negatives] == wanted
    if true or found:
        assert quality.panoptic == pytest.approx(float(2 * sum(halves) / (len(true) + len(found))), abs=1e-9)
        assert quality.panoptic == pytest.approx(quality.segmentation * quality.recognition)

    most = [pairs[a, b] for a in true for b in found if 2 * len(true[a] & found[b]) > len(true[a])]
    assert seg(table).iou == sum(half_up(BILLION * iou) for iou in most)
    if true:
        assert seg(table).score == pytest.approx(float(sum(most) / len(true)), abs=1e-9)
    assert (count(table).true, count(table).found) == (len(true), len(found))


@pytest.mark.parametrize("seed", range(150))
def test_each_unmatched_cell_has_one_reason(seed: int) -> None:
    truth, predicted = scene(seed)
    table = overlap(truth, predicted)
    true, found = cells(truth, truth), cells(predicted, truth)
    errors = cell_errors(table)
    pieces = {a: tuple(b for b in sorted(found) if 2 * len(true[a] & found[b]) > len(found[b])) for a in sorted(true)}
    covered = {b: tuple(a for a in sorted(true) if 2 * len(true[a] & found[b]) > len(true[a])) for b in sorted(found)}
    assert errors.split == {cell: parts for cell, parts in pieces.items() if len(parts) > 1}
    assert errors.merged == {cell: parts for cell, parts in covered.items() if len(parts) > 1}
    explained = {*errors.split, *(cell for parts in errors.merged.values() for cell in parts)}
    assert not explained & set(errors.missed)
    misses = average_precision(table).false_negatives[0]
    assert len(errors.missed) <= misses <= len(errors.missed) + len(explained)
    explained = {*errors.merged, *(cell for parts in errors.split.values() for cell in parts)}
    assert not explained & set(errors.false)
    misses = average_precision(table).false_positives[0]
    assert len(errors.false) <= misses <= len(errors.false) + len(explained)


def discs(*centres: tuple[int, int], radius: int = 10) -> Labels:
    rows, columns = np.mgrid[:64, :96]
    labels = np.zeros((64, 96), np.int64)
    for cell, (row, column) in enumerate(centres, 1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = cell
    return labels


def test_discs_shifted_by_known_amounts() -> None:
    """Discs of 317 pixels in 21 rows moved along the rows: each row loses as many pixels as it moves, the ends 1."""
    truth = discs((12, 12), (12, 40), (40, 12), (40, 40))
    predicted = discs((12, 12), (12, 41), (40, 14), (40, 46))
    table = overlap(truth, predicted)
    assert table.shared.tolist() == [317, 317 - 21, 317 - 2 * 19 - 2, 317 - 6 * 19 - 2] and set(
        table.true_pixels.tolist()
    ) == {317}
    found = average_precision(table)
    assert found.true_positives.tolist() == [3, 3, 3, 3, 3, 3, 2, 2, 1, 1]
    assert found.false_positives.tolist() == found.false_negatives.tolist() == [1, 1, 1, 1, 1, 1, 2, 2, 3, 3]
    assert (found.at(50), found.at(75), found.at(90)) == (3 / 5, 3 / 5, 1 / 7)
    assert found.mean == pytest.approx((6 * 3 / 5 + 2 * 2 / 6 + 2 * 1 / 7) / 10)
    matched = 1 + 296 / 338 + 277 / 357
    quality = panoptic_quality(table)
    assert quality.segmentation == pytest.approx(matched / 3, abs=1e-9)
    assert quality.recognition == 3 / 4
    assert quality.panoptic == pytest.approx(matched / 4, abs=1e-9)
    assert seg(table).score == pytest.approx((matched + 201 / 433) / 4, abs=1e-9)  # 201 of 317 is most of it
    assert count(table).error == 0


def test_a_split_a_merged_a_missed_and_a_false_cell() -> None:
    truth, predicted = np.zeros((2, 40, 40), np.int64)
    truth[0:10, 0:10], truth[0:10, 20:30], truth[0:10, 30:40] = 1, 2, 3  # split; merged with 3
    truth[20:30, 0:10], truth[20:30, 20:30] = 4, 5  # missed; found
    predicted[0:5, 0:10], predicted[5:10, 0:10], predicted[0:10, 20:40] = 11, 12, 13
    predicted[22:24, 1:3], predicted[20:30, 20:30] = 14, 15
    assert cell_errors(overlap(truth, predicted)) == CellErrors({1: (11, 12)}, {13: (2, 3)}, (4,), (14,))
    rows = scored(Count(2), (truth, predicted)).rows[0].tolist()
    assert dict(zip(Count.parts, rows[1:], strict=True)) == {
        "true": 5, "found": 5, "split": 1, "merged": 1, "missed": 1, "false": 1,
    }  # fmt: skip


def test_a_fragment_beside_a_match_is_a_split() -> None:
    truth, predicted = np.zeros((2, 10, 10), np.int64)
    truth[:, :], predicted[:, :9], predicted[:, 9] = 1, 1, 2
    assert cell_errors(overlap(truth, predicted)) == CellErrors({1: (1, 2)}, {}, (), ())
    assert average_precision(overlap(truth, predicted)).at(50) == 1 / 2


NONE, CELL = np.zeros((64, 96), np.int64), discs((20, 20))


@pytest.mark.parametrize(
    ("truth", "predicted", "wanted"),
    [
        (CELL, CELL, ([1] * 4, [1] * 3, [1], [0, 1, 1, 0, 0, 0, 0])),
        (CELL, NONE, ([0] * 4, [0] * 3, [0], [1, 1, 0, 0, 0, 1, 0])),
        (NONE, CELL, ([0] * 4, [0] * 3, [0], [1, 0, 1, 0, 0, 0, 1])),
        (NONE, NONE, ([math.nan] * 4, [math.nan] * 3, [math.nan], [0] * 7)),
        (NONE - 1, CELL, ([math.nan] * 4, [math.nan] * 3, [math.nan], [math.nan] * 7)),
    ],
    ids=["all right", "nothing found", "nothing there", "neither", "unlabelled"],
)
def test_cells_in_one_in_both_and_in_neither(truth: Labels, predicted: Labels, wanted: tuple[list[float], ...]) -> None:
    for kind, scores in zip(METRICS, wanted, strict=True):
        np.testing.assert_array_equal(scored(kind(2), (truth, predicted)).rows[0], scores)


def test_pooled_counts_are_sums_and_empty_images_are_left_out_of_means() -> None:
    three = discs((12, 12), (12, 40), (40, 12))
    found = scored(AveragePrecision(2), (three, three), (CELL, NONE), (NONE, NONE))
    assert rows_of(found, ("background", "cell"))["AP50"].tolist()[:2] == [1, 0]
    assert pooled_of(found, ("background", "cell")) == dict.fromkeys(("all", "AP50", "AP75", "AP90"), 3 / 4)
    row = summarise({"average_precision": found}, ("background", "cell"))["average_precision"]["AP90"]
    assert (row["per_image"], row["images"]) == (1 / 2, 2)


def test_count_errors_of_opposite_sign_do_not_cancel() -> None:
    two = discs((12, 12), (12, 40))
    found = scored(Count(2), (two, CELL), (CELL, two))
    assert found.pooled.tolist()[:3] == [2 / 3, 3, 3]
    assert found.rows[:, 0].tolist() == [1 / 2, 1]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_parts_are_rows_whatever_the_number_of_classes(classes: int) -> None:
    names = [f"class {index}" for index in range(classes)]
    scores = {
        "average_precision": scored(AveragePrecision(classes), (CELL, CELL)),
        "seg": scored(Seg(classes), (CELL, NONE)),
    }
    assert tags(summarise(scores, names)) == {
        "val/average_precision": 1,
        **{f"val/average_precision/{part}": 1 for part in ("AP50", "AP75", "AP90")},
        "val/seg": 0,
    }
    assert AveragePrecision(classes).headline(rows_of(scores["average_precision"], names), names) == "all"


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("seed", range(20))
def test_unlabelled_pixels_are_in_no_cell(kind: type[InstanceMetric], seed: int) -> None:
    truth, predicted = scene(3 * seed)
    known = truth >= 0
    cut = np.where(known, truth, 0), np.where(known, predicted, 0)
    assert torch.equal(
        scored(kind(2), (truth, predicted)).counts[:, :-1], scored(kind(2), cut).counts[:, :-1]
    )  # the last is the number of labelled pixels
    other = np.where(known, predicted, np.random.default_rng(seed).integers(0, 9, truth.shape))
    assert torch.equal(scored(kind(2), (truth, predicted)).counts, scored(kind(2), (truth, other)).counts)


@pytest.mark.parametrize("kind", METRICS)
def test_the_border_is_ignored_on_request(kind: type[InstanceMetric]) -> None:
    inside, both = discs((30, 30)), discs((30, 30), (30, 94))
    assert (
        not torch.equal(scored(kind(2), (inside, both)).counts, scored(kind(2), (inside, inside)).counts) or kind is Seg
    )
    ignoring = kind(2, ignore_border=1)
    for pair in ((inside, both), (both, inside), (both, both)):
        assert torch.equal(scored(ignoring, pair).counts, scored(kind(2), (inside, inside)).counts)
