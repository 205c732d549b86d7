"""Losses against torch's own and against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from yeastexp import registry
from yeastexp.contracts import AdditiveLoss
from yeastexp.errors import UserError
from yeastexp.nets.losses import BoundaryCrossEntropy, CrossEntropy, Dice, DiceCrossEntropy, Focal
from yeastexp.sample import IGNORE


def batch(classes: int = 3, size: tuple[int, int] = (9, 7), ignored: bool = True) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(classes)
    logits = torch.randn(2, classes, *size, generator=source) * 3
    return logits, torch.randint(IGNORE if ignored else 0, classes, (2, *size), generator=source)


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    return functional.cross_entropy(logits, labels, weights, ignore_index=IGNORE)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("size", [(1, 1), (9, 7)])
def test_these_are_torchs_cross_entropy(classes: int, size: tuple[int, int]) -> None:
    logits, labels = batch(classes, size, ignored=size != (1, 1))
    wanted = cross_entropy(logits, labels)
    torch.testing.assert_close(CrossEntropy(classes)(logits, labels), wanted)
    torch.testing.assert_close(Focal(classes, gamma=0.0)(logits, labels), wanted)
    torch.testing.assert_close(BoundaryCrossEntropy(classes, weight=1.0)(logits, labels), wanted)
    weights = torch.arange(1.0, classes + 1)
    torch.testing.assert_close(
        CrossEntropy(classes, tuple(weights.tolist()))(logits, labels), cross_entropy(logits, labels, weights)
    )


def test_gradients_are_torchs_too() -> None:
    logits, labels = batch()
    found, wanted = (logits.clone().requires_grad_() for _ in range(2))
    CrossEntropy(3, (0.0, 1.0, 2.5))(found, labels).backward()
    cross_entropy(wanted, labels, torch.tensor([0.0, 1.0, 2.5])).backward()
    torch.testing.assert_close(found.grad, wanted.grad)


def test_only_pixels_of_a_class_without_weight_cost_nothing() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    value = CrossEntropy(2, (0.0, 1.0))(logits, torch.zeros(1, 3, 3).long())
    value.backward()
    assert float(value.detach()) == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0), (0.0, 0.0)])
def test_weights_that_fit_no_classes_are_refused(weights: tuple[float, ...]) -> None:
    for loss in (CrossEntropy, DiceCrossEntropy):
        with pytest.raises(UserError, match="needs 2 weights, not all zero") as caught:
            loss(2, weights)
        assert caught.value.key == "weights"


def test_weights_move_with_the_loss_and_are_no_state() -> None:
    loss = CrossEntropy(2, (1.0, 2.0))
    assert loss.to(torch.float64).weights is not None and loss.weights.dtype == torch.float64
    assert not loss.state_dict()


def test_dice_by_hand() -> None:
    """Probability 1/2 everywhere, of six known pixels two true, no smoothing: 1 - 2·(2·½) / (3 + 2)."""
    logits, labels = torch.zeros(1, 2, 2, 4), torch.tensor([[[1, 1, 0, 0], [0, 0, IGNORE, IGNORE]]])
    assert float(Dice(2, smooth=0.0)(logits, labels)) == pytest.approx(1 - 2 / 5)
    assert float(Dice(2, smooth=5.0)(logits, labels)) == pytest.approx(1 - 7 / 10)


def test_dice_is_that_of_the_metric_when_the_model_is_sure() -> None:
    _, labels = batch(ignored=False)
    _, prediction = batch(size=(7, 9), ignored=False)
    prediction = prediction.transpose(1, 2)
    logits = functional.one_hot(prediction, 3).permute(0, 3, 1, 2) * 200.0
    overlap = [
        2 * ((prediction == k) & (labels == k)).sum() / ((prediction == k).sum() + (labels == k).sum()) for k in (1, 2)
    ]
    assert float(Dice(3, smooth=0.0)(logits, labels)) == pytest.approx(1 - float(sum(overlap)) / 2)


def test_dice_cross_entropy_is_the_sum() -> None:
    logits, labels = batch()
    weights = (1.0, 2.0, 0.5)
    wanted = CrossEntropy(3, weights)(logits, labels) + Dice(3, smooth=2.0)(logits, labels)
    torch.testing.assert_close(DiceCrossEntropy(3, weights, smooth=2.0)(logits, labels), wanted)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_by_hand(gamma: float) -> None:
    logits = torch.tensor([0.0, math.log(3.0)]).reshape(1, 2, 1, 1)  # probabilities 1/4 and 3/4
    for label, right in ((0, 0.25), (1, 0.75)):
        found = Focal(2, gamma)(logits, torch.tensor([[[label]]]))
        assert float(found) == pytest.approx(-((1 - right) ** gamma) * math.log(right), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_focal_has_a_slope_where_the_model_is_sure(gamma: float) -> None:
    """A power below 1 is infinitely steep at 0, which a probability of 1 reaches."""
    logits = torch.tensor([200.0, -200.0]).reshape(1, 2, 1, 1).repeat(1, 1, 1, 2).requires_grad_()
    Focal(2, gamma)(logits, torch.tensor([[[0, 1]]])).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert logits.grad[0, :, 0, 0].tolist() == [0, 0] and logits.grad[0, 1, 0, 1] < 0


def test_weights_near_a_boundary() -> None:
    labels = torch.zeros(1, 7, 12).long()
    labels[:, :, 5:9], labels[:, :, 9:] = 1, IGNORE
    weights = BoundaryCrossEntropy(2, weight=3.0, radius_px=2).weights(labels, 2)
    assert weights[0, 0].tolist() == [1, 1, 1, 3, 3, 3, 3, 1, 1, 0, 0, 0]  # the ignored part is no other class
    assert torch.equal(weights, weights[:, :1].expand_as(weights))


def test_boundary_weights_are_a_chessboard_distance() -> None:
    labels = np.zeros((30, 40), np.int64)
    rows, columns = np.mgrid[:30, :40]
    labels[np.hypot(rows - 14, columns - 20) < 8] = 1
    labels[12:20, 25:33] = 2
    for radius in (1, 3):
        near = np.zeros(labels.shape, bool)
        for one in range(3):
            away = ndimage.distance_transform_cdt(labels != one, "chessboard")
            near |= (labels != one) & (away <= radius)
        found = BoundaryCrossEntropy(3, weight=4.0, radius_px=radius).weights(torch.from_numpy(labels)[None], 3)
        np.testing.assert_array_equal(found[0].numpy(), np.where(near, 4, 1))


@pytest.mark.parametrize("name", list(registry.loss))
def test_a_loss_says_how_it_adds_up_or_that_it_does_not(name: str) -> None:
    """Sums and counts of two batches with other numbers of labelled pixels add up to those of both together."""
    logits, labels = batch()
    labels[0, 2:] = IGNORE
    loss = registry.loss[name](3)
    if not isinstance(loss, AdditiveLoss):
        assert "o mean over pixels" in " ".join((loss.__doc__ or "").split())
        return
    halves = [
        (loss(one, other), loss.count(other)) for one, other in zip(logits.split(1), labels.split(1), strict=True)
    ]
    total = sum(float(value * count) for value, count in halves)
    assert total == pytest.approx(float(loss(logits, labels) * loss.count(labels)), rel=1e-5)
    assert sum(int(count) for _, count in halves) == int(loss.count(labels)) > 0
