"""What single parts promise beyond the laws that hold for all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from yeastexp.errors import UserError
from yeastexp.losses import CrossEntropy, DiceCrossEntropy
from yeastexp.models.unet import UNet
from yeastexp.optimizers import adamw
from yeastexp.sample import IGNORE, Sample
from yeastexp.schedulers import constant, one_cycle
from yeastexp.transforms import chain
from yeastexp.transforms.downscale import Downscale
from yeastexp.transforms.zscore import ZScore


def sample(image: np.ndarray) -> Sample:
    return Sample(torch.from_numpy(image).float(), torch.zeros(image.shape[1:]).long(), "x")


def test_zscore_of_each_image() -> None:
    image = np.random.default_rng(0).normal(570, 30, (1, 20, 30))
    found = chain.whole([ZScore()], sample(image)).image.numpy()
    np.testing.assert_allclose(found, (image - image.mean()) / image.std(), atol=1e-4)
    assert not chain.whole([ZScore()], sample(np.full((1, 4, 4), 9.0))).image.any()


def test_zscore_figures_are_those_of_all_training_pixels() -> None:
    source = np.random.default_rng(0)
    images = [torch.from_numpy(source.normal(1e4, 3, (1, n, 2 * n))).float() for n in (5, 11, 30)]
    (fitted,) = chain.fitted([ZScore(per="dataset")], lambda: iter(images))
    pixels = np.concatenate([image.numpy().ravel().astype(np.float64) for image in images])
    assert isinstance(fitted, ZScore)
    assert (fitted.mean, fitted.std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-10)


def test_a_later_transform_is_fitted_behind_the_earlier() -> None:
    images = [torch.arange(16.0).reshape(1, 4, 4)]
    _, fitted = chain.fitted([Downscale(2), ZScore(per="dataset")], lambda: iter(images))
    assert (
        isinstance(fitted, ZScore)
        and fitted.mean == 7.5
        and fitted.std == pytest.approx(np.std([2.5, 4.5, 10.5, 12.5]))
    )


def test_zscore_refuses_half_a_figure() -> None:
    with pytest.raises(UserError, match="'mean' and 'std' together"):
        ZScore(per="dataset", mean=1.0)
    with pytest.raises(UserError, match="per = 'dataset'"):
        ZScore(mean=1.0, std=2.0)
    with pytest.raises(UserError, match="one constant value"):
        chain.fitted([ZScore(per="dataset")], lambda: iter([torch.ones(1, 4, 4)]))


def test_downscale_means_its_blocks() -> None:
    image = np.random.default_rng(1).normal(size=(1, 7, 10))
    found = chain.whole([Downscale(3)], sample(image)).image[0].numpy()
    wanted = [[image[0, y : y + 3, x : x + 3].mean() for x in range(0, 10, 3)] for y in range(0, 7, 3)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    plain = chain.whole([Downscale(3, filter_probability=0)], sample(image)).image[0].numpy()
    np.testing.assert_array_equal(plain, image[0, ::3, ::3].astype(np.float32))
    assert Downscale(3, filter_probability=0.5).draws() and not Downscale(3).draws()


def test_cross_entropy_is_torchs() -> None:
    logits, labels = torch.randn(2, 3, 5, 6), torch.randint(-1, 3, (2, 5, 6))
    weights = torch.tensor([0.5, 2.0, 1.0])
    torch.testing.assert_close(
        CrossEntropy(3)(logits, labels), functional.cross_entropy(logits, labels, ignore_index=IGNORE)
    )
    torch.testing.assert_close(
        CrossEntropy(3, (0.5, 2.0, 1.0))(logits, labels),
        functional.cross_entropy(logits, labels, weights, ignore_index=IGNORE),
    )
    with pytest.raises(UserError, match="needs 3 weights"):
        CrossEntropy(3, (1.0, 2.0))


def test_dice_by_hand() -> None:
    """p = 1/2 everywhere, one pixel of four true: 1 - (2·½ + 1) / (2 + 1 + 1)."""
    logits, labels = torch.zeros(1, 2, 2, 2), torch.tensor([[[1, 0], [0, 0]]])
    assert float(DiceCrossEntropy(2)(logits, labels)) == pytest.approx(math.log(2) + 0.5)


def test_vectors_are_not_decayed() -> None:
    matrix, vector = (torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2,)))
    optimizer = adamw([matrix, vector], learning_rate=0.1, weight_decay=0.5)
    (matrix.sum() * 0 + vector.sum() * 0).backward()
    optimizer.step()
    assert torch.equal(vector, torch.ones(2)) and torch.allclose(matrix, torch.full((2, 2), 0.95))


@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_one_cycle_rises_for_a_tenth_and_falls_to_its_end(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = one_cycle(optimizer, steps, final=0.25)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25)
    peak = rates.index(max(rates))
    assert peak == max(1, round(steps / 10)) or steps < 2
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)


def test_constant_is_constant() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = constant(optimizer, 3)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(("patch", "levels"), [(1, 2), (2, 2), (1, 3)])
def test_a_part_of_an_image_gives_a_part_of_the_logits(patch: int, levels: int) -> None:
    """Far from the cut, when the cut is aligned: what exact tiling stands on. The image's size fits no grid."""
    model = UNet(1, 2, width=4, levels=levels, patch=patch).double().eval()
    image = torch.randn(1, 1, 101, 131, dtype=torch.float64)
    whole = model(image)
    far = 48
    part = model(image[..., 24:, 32:])
    torch.testing.assert_close(part[..., far:, far:], whole[..., 24 + far :, 32 + far :], rtol=0, atol=1e-12)
    part = model(image[..., :72, :96])
    torch.testing.assert_close(
        part[..., : 72 - far, : 96 - far], whole[..., : 72 - far, : 96 - far], rtol=0, atol=1e-12
    )


def test_the_unet_has_the_parameters_it_should() -> None:
    """Counted by hand for two levels of width 4, one channel, two classes, no patches."""
    convolutions = [1 * 4 * 9, 4 * 4 * 9, 4 * 8 * 9, 8 * 8 * 9, 8 * 4 * 9, 4 * 4 * 9]
    norms = 2 * (4 + 4 + 8 + 8 + 4 + 4)
    up, head = 8 * 4 * 4 + 4, 4 * 2 + 2
    model = UNet(1, 2, width=4, levels=2, patch=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(convolutions) + norms + up + head
