"""The U-Net: sizes, reach, parameters."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from yeastexp.models.unet import UNet

NORMS = ("batch", "group", "instance", "none")


def unet(channels: int = 1, classes: int = 2, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return UNet(channels, classes, **{"width": 2, "levels": 2, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(("levels", "patch"), list(itertools.product((1, 2, 3), (1, 2, 3))))
def test_every_size_is_an_image(levels: int, patch: int) -> None:
    model = unet(2, 3, levels=levels, patch=patch).eval()
    for height, width in ((1, 1), (5, 7), (16, 16), (25, 31)):
        logits = model(torch.randn(2, 2, height, width))
        assert logits.shape == (2, 3, height, width) and bool(logits.isfinite().all())


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_learns(norm: str) -> None:
    model = unet(norm=norm, dropout=0.2, width=8)
    model(torch.randn(2, 1, 24, 20)).square().mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_evaluation_is_the_same_twice_and_does_not_depend_on_the_batch(norm: str) -> None:
    model = unet(norm=norm, dropout=0.5).double().eval()
    images = torch.randn(3, 1, 24, 20, dtype=torch.float64)
    whole = model(images)
    assert torch.equal(whole, model(images))
    torch.testing.assert_close(whole[1:2], model(images[1:2]), rtol=0, atol=1e-12)


def test_dropout_draws_in_training_alone() -> None:
    model = unet(dropout=0.5)
    images = torch.randn(1, 1, 16, 16)
    assert not torch.equal(model.train()(images), model(images))


def changed_by(model: nn.Module, row: int, column: int, size: int = 64) -> tuple[int, int, int, int]:
    """The rows and columns, first and last, of logits that one pixel changes."""
    image = torch.randn(1, 1, size, size, dtype=torch.float64)
    other = image.clone()
    other[0, 0, row, column] += 1000
    apart = (model(image) != model(other)).any(dim=1)[0]
    rows, columns = (apart.any(dim=axis).nonzero() for axis in (1, 0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.parametrize(("levels", "patch"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)])
def test_a_pixel_reaches_as_far_as_the_convolutions(levels: int, patch: int) -> None:
    """Two 3×3 convolutions a level down and up, each a pixel of its level: 2 at every level, twice but at the last."""
    model = unet(levels=levels, patch=patch).double().eval()
    reach = patch * (sum(2 * 2 * 2**level for level in range(levels - 1)) + 2 * 2 ** (levels - 1))
    coarsest = patch * 2 ** (levels - 1)
    first, last, left, right = changed_by(model, 32, 32)
    for low, high in ((first, last), (left, right)):
        assert 32 - reach - coarsest < low < 32 < high < 32 + reach + coarsest


@pytest.mark.parametrize("cut", [(64, 72), (65, 71), (57, 95)])
def test_the_upper_left_part_alone_gives_the_same_far_from_the_cut(cut: tuple[int, int]) -> None:
    model = unet(3, 2, levels=3, patch=2).double().eval()
    image = torch.randn(1, 3, 104, 112, dtype=torch.float64)
    height, width = cut
    far = unet_reach(levels=3, patch=2)
    assert height > far and width > far
    whole, part = model(image), model(image[..., :height, :width])
    kept = (..., slice(height - far), slice(width - far))
    torch.testing.assert_close(part[kept], whole[kept], rtol=0, atol=1e-12)
    assert not torch.equal(part[..., -1, -1], whole[..., height - 1, width - 1])


def unet_reach(levels: int, patch: int) -> int:
    """Pixels beyond which nothing is seen: the convolutions' and a block of the coarsest grid."""
    return patch * (sum(4 * 2**level for level in range(levels - 1)) + 2 * 2 ** (levels - 1) + 2 ** (levels - 1))


def test_a_shift_by_the_coarsest_block_shifts_the_logits() -> None:
    model = unet(levels=3, patch=1).double().eval()
    image = torch.randn(1, 1, 96, 96, dtype=torch.float64)
    whole, rolled = model(image), model(image.roll((4, 8), (2, 3)))
    inner = (..., slice(32, 64), slice(32, 64))
    torch.testing.assert_close(rolled.roll((-4, -8), (2, 3))[inner], whole[inner], rtol=0, atol=1e-12)


def test_each_channel_and_class_matters() -> None:
    model = unet(3, 4, norm="none", levels=1).eval()
    image = torch.randn(1, 3, 8, 8)

    def logits(channel: int) -> Tensor:
        other = image.clone()
        other[:, channel] += 10
        found: Tensor = model(other)
        return found

    answers = [logits(channel) for channel in range(3)]
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(answers, 2))
    assert len({round(float(plane.sum().detach()), 4) for plane in answers[0][0]}) == 4


def test_there_are_no_biases_before_a_norm() -> None:
    def biases(norm: str) -> int:
        return sum("bias" in name for name, _ in unet(norm=norm).named_parameters())

    # Norms bring their own shift, one for one.
    assert biases("batch") == biases("none") == biases("group") == biases("instance")
