"""Counts and scores on whole images, exact where they are known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, make_dataclass, replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cell_sets import best, cells, ious
from cell_sets import scene as scattered

from yeastexp.contracts import Prediction
from yeastexp.errors import UserError
from yeastexp.evaluation.measure import Measured, measure, metric_of, metrics_of
from yeastexp.evaluation.source import Images, image_digest
from yeastexp.metrics.instances import AveragePrecision, Count, PanopticQuality, Seg
from yeastexp.metrics.pixels import Accuracy, BoundaryF1, DeadCellFalsePositives, Dice, IoU, PerImageMetric, Recall
from yeastexp.sample import IGNORE, Sample
from yeastexp.tasks.instances import Instances
from yeastexp.tasks.semantic import Semantic
from yeastexp.tasks.telling_apart import METRICS

CLASSES = ("background", "cell", "bud")
CPU = torch.device("cpu")


@dataclass
class Drawn:
    """A data set of label maps; each image is one channel of zeros."""

    truths: dict[str, np.ndarray]
    extra: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    normalization: dict[str, float] | None = None

    @property
    def maps(self) -> tuple[str, ...]:
        return tuple(self.extra)

    def read(self, name: str) -> Sample:
        truth = self.truths[name]
        maps = {key: torch.from_numpy(found[name]) for key, found in self.extra.items()}
        return Sample(torch.zeros((1, *truth.shape)), torch.from_numpy(truth), name, maps=maps)


@dataclass
class Answering:
    """A model whose predictions are known."""

    answers: dict[str, np.ndarray]
    cells: dict[str, np.ndarray] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES
    device: torch.device = CPU
    task: Any = field(default_factory=lambda: Semantic(1, len(CLASSES)))

    def rescaled(self, image: torch.Tensor, stored: Any) -> torch.Tensor:
        return image

    def predict(self, sample: Sample) -> Prediction:
        cells = torch.from_numpy(self.cells[sample.name]) if self.cells else None
        return Prediction(torch.from_numpy(self.answers[sample.name]), cells)


def four() -> dict[str, PerImageMetric]:
    kinds = {"accuracy": Accuracy, "iou": IoU, "dice": Dice, "boundary_f1": BoundaryF1}
    return {name: kind(len(CLASSES)) for name, kind in kinds.items()}


def measured(
    truths: dict[str, np.ndarray],
    answers: dict[str, np.ndarray],
    more: dict[str, PerImageMetric] | None = None,
    **extra: Any,
) -> Measured:
    images = Images(Drawn(truths, extra), "drawn", tuple(truths), Answering(answers))  # type: ignore[arg-type]
    return measure(images, four() | (more or {}))


def blank(size: int = 12) -> np.ndarray:
    return np.zeros((size, size), np.int64)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Truth: two cells of 3 × 3, one bud of 2 × 2, a row without truth. Answer: one cell found, a part of the other
    called a bud, the bud missed, a false cell of one pixel, and anything in the row without truth."""
    truth, answer = blank(), blank()
    truth[1:4, 1:4] = answer[1:4, 1:4] = 1
    truth[6:9, 6:9] = 1
    answer[6:9, 6:8] = 2
    truth[1:3, 8:10] = 2
    answer[5, 1] = 1
    truth[11] = IGNORE
    answer[11] = 1
    return truth, answer


def test_pixels_shares_and_cells_by_hand() -> None:
    truth, answer = scene()
    rows = {row["class"]: row for row in measured({"a": truth}, {"a": answer}).rows()}
    known = 11 * 12
    assert list(rows) == list(CLASSES)
    wanted = {
        "background": (known - 22 - 1, 3 + 4, 1, 15),
        "cell": (9, 1, 9, known - 19),
        "bud": (0, 6, 4, known - 10),
    }
    for name, (hits, false, missed, rest) in wanted.items():
        row = rows[name]
        assert row["image"] == "a"
        assert row["true_positives"] == hits and row["false_positives"] == false
        assert row["false_negatives"] == missed and row["true_negatives"] == rest
        assert row["accuracy"] == (hits + rest) / known
        assert row["iou"] == hits / (hits + false + missed)
        assert row["dice"] == 2 * hits / (2 * hits + false + missed)
    assert [(row["regions_true"], row["regions_predicted"]) for row in rows.values()] == [("", ""), (2, 2), (1, 1)]


def test_the_rows_add_up_to_the_confusion_and_the_cells() -> None:
    truth, answer = scene()
    found = measured({"a": truth, "b": truth.T.copy()}, {"a": answer, "b": blank()})
    rows = found.rows()
    for label, name in enumerate(CLASSES):
        own = [row for row in rows if row["class"] == name]
        assert found.confusion[label, label] == sum(row["true_positives"] for row in own)
        assert found.confusion[:, label].sum() - found.confusion[label, label] == sum(r["false_positives"] for r in own)
        assert found.confusion[label].sum() - found.confusion[label, label] == sum(r["false_negatives"] for r in own)
    assert found.cells == {"cell": {"true": 4, "predicted": 2}, "bud": {"true": 2, "predicted": 1}}


def test_regions_that_touch_at_a_corner_are_one_cell_and_unlabelled_pixels_part_them() -> None:
    truth, answer = blank(), blank()
    truth[0, 0] = truth[1, 1] = truth[3, 3] = 1
    answer[5:8] = 1
    truth[6] = IGNORE
    (row,) = [row for row in measured({"a": truth}, {"a": answer}).rows() if row["class"] == "cell"]
    assert (row["regions_true"], row["regions_predicted"]) == (2, 2)


def test_instances_are_counted_where_the_data_have_them() -> None:
    truth, ids = blank(), blank()
    truth[2:6, 2:8] = 1
    ids[2:6, 2:5], ids[2:6, 5:8] = 7, 9
    found = measured({"a": truth}, {"a": truth}, instances={"a": ids})
    assert found.rows()[1]["instances_true"] == 2 and found.rows()[1]["regions_true"] == 1
    assert found.cells["cell"] == {"true": 1, "predicted": 1, "instances": 2}


def test_a_class_that_is_nowhere_has_no_share_but_its_pixels() -> None:
    (row,) = [row for row in measured({"a": blank()}, {"a": blank()}).rows() if row["class"] == "bud"]
    assert [row[key] for key in ("true_positives", "false_positives", "false_negatives")] == [0, 0, 0]
    assert row["true_negatives"] == 144 and row["accuracy"] == 1
    assert math.isnan(row["iou"]) and math.isnan(row["dice"]) and math.isnan(row["boundary_f1"])


def test_an_unlabelled_image_has_no_score() -> None:
    rows = measured({"a": np.full((4, 4), IGNORE)}, {"a": np.ones((4, 4), np.int64)}).rows()
    assert all(math.isnan(row["accuracy"]) and math.isnan(row["iou"]) for row in rows)
    assert rows[1]["regions_predicted"] == 0


def test_further_metrics_are_columns_by_class_or_by_image() -> None:
    truth, answer = scene()
    dead = blank()
    dead[5, 1] = 1
    more = {"recall": Recall(3), "dead_cell_false_positives": DeadCellFalsePositives(3)}
    rows = measured({"a": truth}, {"a": answer}, more, dead={"a": dead}).rows()
    assert [row["recall"] for row in rows] == [109 / 110, 0.5, 0]
    assert [row["dead_cell_false_positives"] for row in rows] == [1, 1, 1]


def test_the_same_figures_in_any_order() -> None:
    source = np.random.default_rng(0)
    truths = {f"image_{index}": source.integers(0, 3, (9, 9)) for index in range(12)}
    answers = {name: np.where(source.random((9, 9)) < 0.7, truth, 0) for name, truth in truths.items()}
    one, other = (measured({name: truths[name] for name in names}, answers) for names in (truths, reversed(truths)))
    assert one.summary == other.summary
    assert one.worst == other.worst
    assert np.array_equal(one.confusion, other.confusion) and one.cells == other.cells
    key = lambda row: (row["image"], row["class"])  # noqa: E731
    assert sorted(one.rows(), key=key) == sorted(other.rows(), key=key)


def test_the_worst_image_is_the_first_by_name_of_those_alike_and_the_highest_where_lower_is_better() -> None:
    truth, answer = scene()
    truths, answers = {"b": truth, "a": truth, "c": truth}, {"b": answer, "a": answer, "c": truth.clip(0)}
    dead = blank()
    dead[1, 1] = 1
    more = {"dead_cell_false_positives": DeadCellFalsePositives(3)}
    found = measured(truths, answers, more, dead={"a": blank(), "b": dead, "c": blank()}).worst
    assert found["iou"]["cell"] == {"image": "a", "score": 9 / 19}
    assert found["dead_cell_false_positives"]["all"] == {"image": "b", "score": 1}
    nothing = measured({"a": blank()}, {"a": blank()}).worst
    assert nothing["iou"]["bud"] is None


def test_the_interval_of_a_share_ends_at_1() -> None:
    truth, answer = scene()
    truths = dict.fromkeys("abcd", truth)
    found = measured(truths, {**dict.fromkeys("abc", truth.clip(0)), "d": answer}).summary
    entry = found["iou"]["background"]
    assert entry["high"] == 1 and entry["low"] < entry["per_image"] < 1


def test_labels_that_are_no_classes_are_named_with_their_file() -> None:
    with pytest.raises(UserError) as caught:
        measured({"a": np.full((4, 4), 5)}, {"a": blank(4)})
    assert str(caught.value) == (
        "drawn: image 'a': its labels hold 5 where [task] classes has 0 to 2; pack the masks again, or name all classes"
    )


def test_a_digest_tells_pixels_and_labels_and_knows_a_normalised_copy() -> None:
    source = np.random.default_rng(0)
    image = torch.from_numpy(source.integers(0, 65536, (1, 8, 8)).astype(np.float32))
    sample = Sample(image, torch.zeros((8, 8), dtype=torch.int64), "a")
    whole = image_digest(sample, None)
    figures = {"mean": 31234.567, "std": 1234.5678}
    normalised = replace(sample, image=((image.double() - figures["mean"]) / figures["std"]).float())
    assert image_digest(normalised, figures) == whole
    assert image_digest(replace(sample, name="b"), None) == whole
    for other in (
        replace(sample, image=image + (torch.arange(64).reshape(1, 8, 8) == 5)),
        replace(sample, labels=sample.labels + (torch.arange(64).reshape(8, 8) == 5)),
        replace(sample, image=image.reshape(1, 4, 16), labels=sample.labels.reshape(4, 16)),
    ):
        assert image_digest(other, None) != whole


def test_a_digest_tells_normalised_fractions() -> None:
    """Of them the raw values cannot be had back: images from 0 to 1 would all be 0 if they were rounded."""
    source = np.random.default_rng(0)
    labels = torch.zeros((8, 8), dtype=torch.int64)
    one, other = (
        Sample(torch.from_numpy(source.normal(0.2, 0.02, (1, 8, 8)).astype(np.float32)), labels, name) for name in "ab"
    )
    figures = {"mean": 0.2, "std": 0.02}
    copies = [
        replace(each, image=((each.image.double() - figures["mean"]) / figures["std"]).float()) for each in (one, other)
    ]
    assert image_digest(copies[0], figures) != image_digest(copies[1], figures)
    assert image_digest(one, None, figures) == image_digest(copies[0], figures)
    assert image_digest(copies[0], figures, {"mean": 0.1, "std": 0.1}) == image_digest(copies[0], figures)
    assert image_digest(one, None) != image_digest(other, None)


@pytest.mark.parametrize("figures", [{"mean": 65000.1, "std": 0.3}, {"mean": 0.7, "std": 9000.1}])
def test_a_digest_knows_normalised_integers_far_from_the_mean(figures: dict[str, float]) -> None:
    image = torch.arange(64, dtype=torch.float32).reshape(1, 8, 8)
    sample = Sample(image, torch.zeros((8, 8), dtype=torch.int64), "a")
    copy = replace(sample, image=((image.double() - figures["mean"]) / figures["std"]).float())
    assert image_digest(copy, figures) == image_digest(sample, None) == image_digest(sample, None, figures)


def test_metrics_are_those_of_every_evaluation_and_the_experiments_own() -> None:
    kinds = {"recall": Recall, "dead_cell_false_positives": DeadCellFalsePositives, "iou": IoU}
    parts = [SimpleNamespace(name=name, options={}, build=kind) for name, kind in kinds.items()]
    task = SimpleNamespace(classes=CLASSES, channels=1, part=SimpleNamespace(name="semantic", build=Semantic))
    experiment: Any = make_dataclass("Stub", ["metrics", "task"])(parts, task)
    standard = ["accuracy", "iou", "dice", "boundary_f1"]
    assert list(metrics_of(experiment, 2.0)) == [*standard, "recall", "dead_cell_false_positives"]
    assert list(metrics_of(experiment, 2.0, maps=())) == [*standard, "recall"], "the data have no map of dead cells"
    assert metric_of(experiment, "dice").bounds == (0, 1)
    assert not metric_of(experiment, "dead_cell_false_positives").higher_is_better


def cell_metrics(ignore_border: int = 0) -> dict[str, PerImageMetric]:
    kinds = {"average_precision": AveragePrecision, "panoptic_quality": PanopticQuality, "seg": Seg, "count": Count}
    return {**{name: kind(2, ignore_border) for name, kind in kinds.items()}, "iou": IoU(2)}


def told_apart(
    truths: dict[str, np.ndarray], answers: dict[str, np.ndarray], ignore_border: int = 0, maps: bool = True
) -> Measured:
    """Label images of cells of one class, as a task scores them that tells them apart."""
    labels = {name: np.where(ids < 0, IGNORE, ids > 0).astype(np.int64) for name, ids in truths.items()}
    data = Drawn(labels, {"instances": {name: ids.clip(0) for name, ids in truths.items()}} if maps else {})
    classes = {name: (ids > 0).astype(np.int64) for name, ids in answers.items()}
    model = Answering(classes, answers, ("background", "cell"), task=Instances(1, 2))
    metrics = {name: metric for name, metric in cell_metrics(ignore_border).items() if metric.has_maps(data.maps)}
    return measure(Images(data, "drawn", tuple(truths), model), metrics)  # type: ignore[arg-type]


def cell_scene() -> tuple[np.ndarray, np.ndarray]:
    """A cell of 16 pixels found as it is; one split in two; two that touch merged; one missed; a false one, which
    touches a cell that is found."""
    truth, answer = blank(20), blank(20)
    truth[1:5, 1:5] = answer[1:5, 1:5] = 1
    truth[1:5, 8:16] = 2
    answer[1:5, 8:12], answer[1:5, 12:16] = 2, 3
    truth[8:12, 1:4], truth[8:12, 4:7] = 3, 4
    answer[8:12, 1:7] = 4
    truth[8:12, 10:14] = 5
    answer[1:5, 5:7] = 5
    return truth, answer


def test_columns_of_cells_told_apart_are_counts_of_instances() -> None:
    truth, answer = cell_scene()
    found = told_apart({"a": truth}, {"a": answer})
    background, cell = found.rows()
    assert (background["cells_true"], background["cells_predicted"]) == ("", "")
    assert (cell["cells_true"], cell["cells_predicted"]) == (5, 5), "by regions it would be 4 and 3"
    counted = {key: cell[f"count_{key}"] for key in ("true", "found", "split", "merged", "missed", "false")}
    assert counted == {"true": 5, "found": 5, "split": 1, "merged": 1, "missed": 1, "false": 1}
    assert all(type(value) is int for value in counted.values())
    # Matched at .5: the first cell, a half of the split one and a half of the merged one, which are IoUs of 1/2.
    assert cell["average_precision_AP50"] == 3 / 7 and cell["average_precision_AP75"] == 1 / 9
    assert cell["panoptic_quality"] == 1 / 5 and cell["count"] == 0
    # Neither half of the split cell has more than half of it; the merged one has all of both, each of them its half.
    assert cell["seg"] == (1 + 0.5 + 0.5) / 5
    assert cell["iou"] == (16 + 32 + 24) / (16 + 32 + 24 + 16 + 8)
    assert found.cells == {"cell": {"true": 5, "predicted": 5}}
    assert "accuracy" in cell and "dice" not in cell and "instances_true" not in cell


def test_pooled_scores_of_cells_come_from_the_counts_of_all_images() -> None:
    scenes = {str(seed): scattered(seed) for seed in range(30)}
    truths = {name: truth for name, (truth, _) in scenes.items()}
    found = told_apart(truths, {name: answer for name, (_, answer) in scenes.items()})
    hits, total, iou_sum, halves = 0, 0, Fraction(0), Fraction(0)
    true_cells = found_cells = differences = 0
    for truth, answer in scenes.values():
        pairs, true, predicted = ious(truth, answer), len(cells(truth, truth)), len(cells(answer, truth))
        matched, _ = best(pairs, Fraction(1, 2))
        hits, total = hits + matched, total + true + predicted - matched
        whole = [iou for iou in pairs.values() if iou > Fraction(1, 2)]
        iou_sum, halves = iou_sum + sum(whole), halves + Fraction(true + predicted, 2)
        true_cells, found_cells = true_cells + true, found_cells + predicted
        differences += abs(true - predicted)
    summary = found.summary
    assert summary["average_precision"]["AP50"]["pooled"] == hits / total
    assert summary["panoptic_quality"]["all"]["pooled"] == pytest.approx(float(iou_sum / halves), abs=1e-9)
    assert summary["count"]["all"]["pooled"] == differences / true_cells
    assert (summary["count"]["true"]["pooled"], summary["count"]["found"]["pooled"]) == (true_cells, found_cells)
    assert found.cells == {"cell": {"true": true_cells, "predicted": found_cells}}


def test_the_worst_image_of_cells_is_one_that_has_the_error() -> None:
    truth, answer = cell_scene()
    worst = told_apart({"a": truth, "b": truth}, {"a": truth, "b": answer}).worst
    assert worst["count"].keys() == {"all", "split", "merged", "missed", "false"}, "a number of cells is neither"
    assert worst["count"]["missed"] == {"image": "b", "score": 1}
    assert told_apart({"a": truth}, {"a": truth}).worst["count"]["missed"] is None
    assert worst["average_precision"]["AP50"] == {"image": "b", "score": 3 / 7}


def test_cells_along_the_border_are_left_out_of_scores_but_counted_as_they_are() -> None:
    truth, answer = cell_scene()
    cell = told_apart({"a": truth}, {"a": answer}, ignore_border=2).rows()[1]
    assert (cell["count_true"], cell["count_missed"], cell["cells_true"]) == (2, 2, 5)


def test_cells_are_predicted_where_the_data_do_not_tell_them_apart() -> None:
    truth, answer = cell_scene()
    found = told_apart({"a": truth}, {"a": answer}, maps=False)
    assert found.cells == {"cell": {"predicted": 5}} and set(found.scores) == {"iou"}
    assert found.rows()[1]["cells_predicted"] == 5 and "cells_true" not in found.rows()[1]


def test_a_task_that_tells_apart_has_metrics_of_its_own() -> None:
    task = SimpleNamespace(classes=CLASSES[:2], channels=1, part=SimpleNamespace(name="instances", build=Instances))
    bordered = SimpleNamespace(name="count", options={}, build=lambda classes: Count(classes, 7))
    parts = [bordered, SimpleNamespace(name="recall", options={}, build=Recall)]
    experiment: Any = make_dataclass("Stub", ["metrics", "task"])(parts, task)
    found: Any = metrics_of(experiment, 2.0)
    assert list(found) == [*METRICS, "recall"]
    assert (found["count"].ignore_border, found["seg"].ignore_border) == (7, 0), "the file's options are kept"
    asked: Any = metrics_of(experiment, 2.0, {"instances"}, 3)
    assert [asked[name].ignore_border for name in METRICS[:4]] == [3] * 4
    assert list(metrics_of(experiment, 2.0, ())) == ["iou", "recall"]
