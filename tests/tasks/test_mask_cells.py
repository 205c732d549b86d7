"""Approximate cells from a mask."""

from __future__ import annotations

import numpy as np
import torch

from yeastexp.metrics.matching import f1, overlap
from yeastexp.tasks.instances import Instances
from yeastexp.tasks.mask_cells import MaskCells


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
