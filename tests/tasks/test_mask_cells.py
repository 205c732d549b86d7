"""Approximate cells from a mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from yeastexp.metrics.matching import f1, overlap
from yeastexp.sample import Sample
from yeastexp.tasks import mask_cells, watershed
from yeastexp.tasks.instances import Instances
from yeastexp.tasks.mask_cells import MaskCells
from yeastexp.tasks.semantic import Semantic


def test_discs_that_overlap_at_a_neck_are_two_and_one_disc_is_one() -> None:
    rows, columns = np.mgrid[:60, :90]
    discs = [np.hypot(rows - 30, columns - at) <= 14 for at in (25, 50)]
    labels = MaskCells().cells(discs[0] | discs[1])
    assert labels.max() == 2 and labels[30, 25] == 1 and labels[30, 50] == 2
    assert MaskCells().cells(discs[0]).max() == 1
    assert not MaskCells().cells(np.zeros((5, 6), bool)).any()
    assert np.array_equal(labels > 0, discs[0] | discs[1])


def test_the_fitted_one_gives_most_true_cells_back() -> None:
    """A rough outline has many tops: only a smoothed distance tells the two cells apart and no more."""
    source = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :90]
    rough = source.normal(0, 1.5, (60, 90))
    ids = np.where(np.hypot(rows - 30, columns - 25) + rough <= 14, 1, 0)
    ids = np.where((np.hypot(rows - 30, columns - 51) + rough <= 14) & (ids == 0), 2, ids)
    fitted, rough_one = MaskCells.fitted([ids]), MaskCells(0.25, 0.5)
    assert f1([overlap(ids, fitted.cells(ids > 0))]) > f1([overlap(ids, rough_one.cells(ids > 0))])


def test_a_baseline_of_the_task_has_such_cells() -> None:
    labels = torch.zeros(40, 40, dtype=torch.int64)
    labels[5:20, 5:20], labels[25:35, 25:35] = 1, 1
    prediction = Instances(1, 2).of_classes(labels)
    assert prediction.instances is not None and int(prediction.instances.max()) == 2
    assert torch.equal(prediction.instances > 0, labels > 0)


@pytest.mark.parametrize("band", [300, 1_000, 7_000])
def test_bands_of_rows_give_the_cells_of_the_whole(monkeypatch: pytest.MonkeyPatch, band: int) -> None:
    """Also where a region is thicker than the rows that are read around a band, or than the farthest distance."""
    monkeypatch.setattr(mask_cells, "ROWS_AROUND", 2)
    rows, columns = np.mgrid[:160, :100]
    mask = np.hypot(rows - 80, columns - 30) <= 45
    mask |= np.random.default_rng(0).random(mask.shape) > 0.7
    for farthest in (9, 512):
        monkeypatch.setattr(mask_cells, "FARTHEST_PX", farthest)
        for image in (mask, np.ones_like(mask), np.zeros_like(mask), rows > 130):
            whole = MaskCells().cells(image)
            monkeypatch.setattr(watershed, "BAND", band)
            labels = np.zeros(image.shape, np.uint32)
            assert MaskCells().fill(lambda part, image=image: image[part], lambda labels=labels: labels) == whole.max()
            assert np.array_equal(labels, whole)
            monkeypatch.setattr(watershed, "BAND", 1 << 22)


def test_the_distance_is_cut_at_the_farthest(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.ones((1, 40), bool)
    image[0, 0] = False
    monkeypatch.setattr(mask_cells, "FARTHEST_PX", 7)
    distance, foreground = mask_cells._Distance(lambda rows: image[rows], 1).and_foreground(slice(0, 1))
    assert distance[0].tolist() == [min(n, 7) for n in range(40)] and foreground[0].tolist() == [0.0] + 39 * [1.0]


def semantic_sample(ids: npt.NDArray[np.int64] | None) -> Sample:
    mask = torch.ones(60, 90, dtype=torch.int64) if ids is None else torch.from_numpy(ids > 0).long()
    return Sample(torch.zeros(1, 60, 90), mask, "", None, {} if ids is None else {"instances": torch.from_numpy(ids)})


def test_semantic_runs_fit_it_on_ids_and_keep_the_default_without() -> None:
    rows, columns = np.mgrid[:60, :90]
    ids = np.where(np.hypot(rows - 30, columns - 25) <= 14, 1, 0)
    ids[np.hypot(rows - 30, columns - 51) <= 14] = 2
    task = Semantic(1, 2)
    task.fit(iter([semantic_sample(None), semantic_sample(ids)]))
    assert task.mask_cells == MaskCells()
    task.fit(iter([semantic_sample(0 * ids)]))
    assert task.mask_cells == MaskCells()
    task.fit(iter([semantic_sample(0 * ids), semantic_sample(ids)]))
    assert task.mask_cells.least_area == round(0.02 * np.median(np.unique(ids, return_counts=True)[1][1:]))
    other = Semantic(1, 2)
    other.load_state_dict({})
    assert other.mask_cells == MaskCells(), "a checkpoint from before says nothing"
    other.load_state_dict(task.state_dict())
    assert other.mask_cells == task.mask_cells


def test_they_are_found_only_if_a_metric_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = torch.zeros(2, 20, 20)
    outputs[0] = 1
    outputs[1, 3:9, 3:9] = 2
    prediction = Semantic(1, 2).decode(outputs)
    assert prediction.instances is None and prediction.asked({"instances"})["instances"].max() == 1
    monkeypatch.setattr(MaskCells, "cells", None)
    assert prediction.asked({"distance"}) == {} == prediction.maps
