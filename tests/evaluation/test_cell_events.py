"""Cells one by one: each with its one event, the worst first, and crops that hold what they are named for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from cell_sets import cells as as_sets
from cell_sets import ious, scene
from torch import from_numpy

from yeastexp.evaluation.cells import ERRORS, LEAST_SIDE, CellSurvey, events
from yeastexp.metrics.instances import Count, cell_errors
from yeastexp.metrics.matching import overlap
from yeastexp.sample import Sample


def blank(side: int = 20) -> np.ndarray:
    return np.zeros((side, side), np.int64)


def sample(true: np.ndarray, name: str = "a") -> Sample:
    image = from_numpy(np.random.default_rng(0).normal(size=(1, *true.shape)).astype(np.float32))
    labels = from_numpy(np.where(true < 0, -1, true > 0).astype(np.int64))
    return Sample(image, labels, name, maps={"instances": from_numpy(true.clip(0))})


def made() -> tuple[np.ndarray, np.ndarray]:
    """A cell found as it is, one a pixel too short, one split, two merged, one missed, and a false one."""
    true, found = blank(), blank()
    true[1:5, 1:5], found[1:5, 1:5] = 1, 11
    true[15:19, 1:5], found[15:19, 1:4] = 6, 16
    true[1:5, 8:16], found[1:5, 8:12], found[1:5, 12:16] = 2, 12, 13
    true[8:12, 1:4], true[8:12, 4:7], found[8:12, 1:7] = 3, 4, 14
    true[8:12, 10:14] = 5
    found[15:18, 10:13] = 15
    return true, found


def test_each_cell_has_one_event() -> None:
    found = {
        (event.kind, event.true, event.predicted, event.pixels, event.iou) for event in events("a", overlap(*made()))
    }
    assert found == {
        ("matched", (1,), (11,), 16, 1.0),
        ("matched", (6,), (16,), 16, 0.75),
        ("split", (2,), (12, 13), 32, 0.5),
        ("merged", (3, 4), (14,), 24, 0.5),
        ("missed", (5,), (), 16, 0.0),
        ("false", (), (15,), 9, 0.0),
    }


@pytest.mark.parametrize("seed", range(40))
def test_events_are_the_errors_that_are_counted(seed: int) -> None:
    true, found = scene(seed)
    table = overlap(true, found)
    errors, numbers = cell_errors(table), Counter(event.kind for event in events("a", table))
    assert [numbers[kind] for kind in ERRORS] == [len(getattr(errors, kind)) for kind in ERRORS]
    counted = Count(2).count(table)
    assert [numbers[kind] for kind in ("split", "merged", "missed", "false")] == list(counted[3:])
    pairs, pixels = ious(true, found), {"true": as_sets(true, true), "predicted": as_sets(found, true)}
    for event in events("a", table):
        side, cell = (
            ("true", event.true[0])
            if event.kind in ("missed", "split", "matched")
            else ("predicted", event.predicted[0])
        )
        assert event.pixels == len(pixels[side][cell])
        if event.kind == "matched":
            assert event.iou == pytest.approx(float(pairs[event.true[0], event.predicted[0]]))
        else:
            best = max((float(iou) for pair, iou in pairs.items() if pair[side == "predicted"] == cell), default=0.0)
            assert event.iou == pytest.approx(best)


def test_crops_hold_their_cells_whole_and_the_worst_are_kept() -> None:
    true, found = made()
    survey = CellSurvey(most=9)
    survey.add(sample(true), found)
    survey.add(sample(true[::-1].copy(), "b"), found[::-1].copy())
    assert survey.counts == {"a": (6, 6), "b": (6, 6)}
    assert survey.kinds == {"matched": 4, "split": 2, "merged": 2, "missed": 2, "false": 2}
    worst = [(crop.event.kind, crop.event.image) for crop in survey.worst]
    assert worst == [
        *(("missed", name) for name in "ab"),
        *(("false", name) for name in "ab"),
        *(("split", name) for name in "ab"),
        ("merged", "a"),
        *(("matched", name) for name in "ab"),
    ], "a matched cell that is exact is no bad one, and two places are kept for those that are not"
    for crop in survey.worst:
        assert crop.true.shape == crop.predicted.shape == crop.image.shape[1:] == (20, 20), "no larger than the image"
    assert sorted(survey.true_diameters) == pytest.approx(np.sqrt(4 * np.repeat([12, 16, 32], [4, 6, 2]) / np.pi))


def test_a_crop_is_a_square_within_the_image_about_its_cell() -> None:
    true = blank(200)
    true[150:200, 100:110] = 7
    survey = CellSurvey(most=3)
    survey.add(sample(true), blank(200))
    (crop,) = survey.worst
    assert crop.true.shape == (100, 100) and (crop.true == 7).sum() == 500
    true = blank(200)
    true[0, 0] = 7
    survey.add(sample(true), blank(200))
    assert survey.worst[-1].true.shape == (LEAST_SIDE, LEAST_SIDE) and survey.worst[-1].true[0, 0] == 7


def test_cells_at_the_border_and_unlabelled_pixels_are_left_out() -> None:
    true, found = made()
    survey = CellSurvey(most=9, ignore_border=2)
    survey.add(sample(true), found)
    assert survey.counts == {"a": (2, 1)}, "the missed one, the false one, and one of those that are merged"
    true[8:12, 10:14] = -1
    survey = CellSurvey(most=9)
    survey.add(sample(true), found)
    assert survey.counts == {"a": (5, 6)} and survey.kinds["missed"] == 0
