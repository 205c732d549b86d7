"""Effective receptive fields: of networks whose gradient is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yeastexp.errors import UserError
from yeastexp.inspection.model import effective_field
from yeastexp.nets.receptive_field import receptive_field


def convolution(weights: Tensor) -> nn.Conv2d:
    """With these weights (K, C, h, w), so that the image keeps its size."""
    classes, channels, height, width = weights.shape
    layer = nn.Conv2d(channels, classes, (height, width), padding="same", bias=False)
    layer.weight = nn.Parameter(weights)
    return layer


def images(count: int = 2, channels: int = 1, side: int = 40) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.randn(channels, side, side, generator=source) for _ in range(count)]


def measured(model: nn.Module, given: list[Tensor]) -> effective_field.GradientDensity:
    return effective_field.measure(model, given, receptive_field(model, given[0].shape[0]))


def test_even_weights_spread_evenly() -> None:
    found = measured(convolution(torch.ones(2, 1, 5, 5)), images())
    assert found.positions == 2 * effective_field.POSITIONS
    np.testing.assert_allclose(found.density, np.full((5, 5), 1 / 25), rtol=1e-6)
    np.testing.assert_allclose(found.within, [1 / 25, 9 / 25, 1], rtol=1e-6)
    assert [found.side(share) for share in (0.01, 0.04, 0.1, 0.36, 0.37, 1.0)] == [1, 1, 3, 3, 5, 5]


def test_convolutions_in_a_row_spread_as_their_product() -> None:
    """Of n even 3×3 convolutions the n-fold convolution of an even row with itself, along both axes."""
    layers = [convolution(torch.ones(1, 1, 3, 3)) for _ in range(4)]
    found = measured(nn.Sequential(*layers), images())
    row = np.ones(1)
    for _ in layers:
        row = np.convolve(row, np.ones(3) / 3)
    np.testing.assert_allclose(found.density, np.outer(row, row), rtol=1e-5)


def test_gradients_of_opposite_sign_do_not_cancel() -> None:
    """Classes, channels and images add up their absolute values."""
    weights = torch.tensor([[[[1.0, 0, 0]], [[-2.0, 0, 0]]], [[[-1.0, 0, 0]], [[0, 0, 4.0]]]])
    found = measured(convolution(weights), images(channels=2))
    assert found.density.shape == (3, 3)
    np.testing.assert_allclose(found.density[1], [0.5, 0, 0.5])
    assert not found.density[[0, 2]].any()


def test_what_lies_beyond_the_border_is_not_counted_as_nothing() -> None:
    """On an image smaller than the field each offset is averaged over the outputs that have a pixel there."""
    found = measured(convolution(torch.ones(1, 1, 9, 9)), images(side=9))
    np.testing.assert_allclose(found.density, np.full((9, 9), 1 / 81), rtol=1e-6)


def test_every_phase_has_its_own_pixel_in_the_middle() -> None:
    """A pool and back: an output at an even place looks one pixel ahead, at an odd place one back."""
    model = nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2))
    found = measured(model, images(8))
    assert found.density.shape == (3, 3)
    assert found.density[1, 1] == pytest.approx(1 / 4)
    assert found.density[0].sum() + found.density[2].sum() == pytest.approx(1 / 2)
    assert min(found.density[0].sum(), found.density[2].sum()) > 0


def test_pieces_of_a_large_image_give_what_the_image_gives() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 5, padding=2), nn.ReLU(), nn.MaxPool2d(4), nn.Upsample(scale_factor=4)).eval()
    field = receptive_field(model, 1)
    (image,) = images(1, side=64)
    radius = max(max(axis.before, axis.after) for axis in field.axes)
    total = np.zeros((2 * radius + 1, 2 * radius + 1))
    for row, column in effective_field._places(0, (64, 64), radius, field.cumulative_stride):
        gradient = effective_field._gradient(model, image, (row, column)).double().numpy()
        total += gradient[row - radius : row + radius + 1, column - radius : column + radius + 1]
    np.testing.assert_allclose(effective_field.measure(model, [image], field).density, total / total.sum(), rtol=1e-6)


def test_a_global_field_is_measured_far_around() -> None:
    model = nn.Sequential(convolution(torch.ones(1, 1, 3, 3)), nn.InstanceNorm2d(1))
    found = measured(model, images(1, side=16))
    assert found.density.shape == (2 * effective_field.MAX_RADIUS + 1,) * 2
    assert found.density.sum() == pytest.approx(1) and 3 <= found.side(0.95) <= 31


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (convolution(torch.zeros(2, 1, 3, 3)), "the model's output does not change with the image"),
        (nn.AvgPool2d(2), "choose a model that segments"),
    ],
    ids=["constant", "coarse"],
)
def test_what_has_no_such_field(model: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measured(model, images())


def test_no_generator_moves_and_the_model_gets_no_gradient() -> None:
    model = convolution(torch.ones(1, 1, 3, 3))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert measured(model, images()).density.tolist() == measured(model, images()).density.tolist()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert model.weight.grad is None
