"""Single transforms: figures, filters, refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from yeastexp.data.transforms import BasicTransform2D, pipeline
from yeastexp.data.transforms.downscale import Downscale
from yeastexp.data.transforms.percentile import Percentile
from yeastexp.data.transforms.poisson_noise import PoissonNoise
from yeastexp.data.transforms.reflect import Reflect
from yeastexp.data.transforms.rotate90 import Rotate90
from yeastexp.data.transforms.zscore import ZScore
from yeastexp.errors import UserError
from yeastexp.randomness import generator
from yeastexp.sample import Sample


def sample(image: np.ndarray) -> Sample:
    return Sample(torch.from_numpy(image).float(), torch.zeros(image.shape[1:]).long(), "x")


def applied(transform: BasicTransform2D, image: torch.Tensor) -> torch.Tensor:
    return transform.image(image, transform.statistics([image]))


@pytest.mark.parametrize("value", [0.0, 0.1, 60000.1, -3e7])
def test_a_constant_image_becomes_zero(value: float) -> None:
    for transform in (ZScore(), Percentile()):
        assert not applied(transform, torch.full((1, 33, 51), value)).any()


@pytest.mark.parametrize("offset", [0.0, 6e4, 1e6])
def test_zscore_is_numpys_whatever_the_offset(offset: float) -> None:
    image = (np.random.default_rng(0).normal(offset, 2, (3, 40, 51))).astype(np.float32)
    wide = image.astype(np.float64)
    for joint, axes in ((True, None), (False, (1, 2))):
        found = applied(ZScore(joint=joint), torch.from_numpy(image)).numpy()
        mean, std = (moment(wide, axis=axes, keepdims=True) for moment in (np.mean, np.std))
        np.testing.assert_allclose(found, (wide - mean) / std, atol=1e-5)


def two_channels(count: int = 3) -> list[torch.Tensor]:
    """A faint channel, 5 ± 1, and a strong one, 1000 ± 100."""
    source = np.random.default_rng(0)
    pairs = [[source.normal(5, 1, (40, 40)), source.normal(1000, 100, (40, 40))] for _ in range(count)]
    return [torch.from_numpy(np.stack(pair)).float() for pair in pairs]


@pytest.mark.parametrize("per", ["image", "dataset"])
@pytest.mark.parametrize("transform", [ZScore, Percentile])
def test_a_faint_channel_keeps_its_contrast_beside_a_strong_one(transform: Any, per: str) -> None:
    images = two_channels()
    (fitted,) = pipeline.fitted([transform(per=per)], lambda: iter(images))
    faint, strong = applied(fitted, images[0])
    assert float(faint.std() / strong.std()) == pytest.approx(1, abs=0.1)
    (together,) = pipeline.fitted([transform(per=per, joint=True)], lambda: iter(images))
    faint, strong = applied(together, images[0])
    assert float(faint.std() / strong.std()) == pytest.approx(0.01, abs=0.001)


@pytest.mark.parametrize("per", ["image", "dataset"])
@pytest.mark.parametrize("transform", [ZScore, Percentile])
def test_a_channel_is_normalised_as_if_it_were_the_only_one(transform: Any, per: str) -> None:
    """Bit for bit, so that results on images of one channel are what they were when channels were pooled."""
    images = two_channels()
    (both,) = pipeline.fitted([transform(per=per)], lambda: iter(images))
    for channel in (0, 1):
        single = [image[channel : channel + 1] for image in images]
        (alone,) = pipeline.fitted([transform(per=per)], lambda single=single: iter(single))
        (joint,) = pipeline.fitted([transform(per=per, joint=True)], lambda single=single: iter(single))
        expected = applied(both, images[0])[channel : channel + 1]
        assert torch.equal(applied(alone, single[0]), expected)
        assert torch.equal(applied(joint, single[0]), expected)


def test_statistics_of_another_number_of_channels_are_refused() -> None:
    for transform in (
        ZScore(per="dataset", mean=(1.0, 2.0), std=(1.0, 2.0)),
        Percentile(per="dataset", at_low=(1.0, 2.0), at_high=(2.0, 3.0)),
    ):
        with pytest.raises(UserError, match="2 statistics are given, but the image has 3 channels"):
            applied(transform, torch.ones(3, 4, 4))
    with pytest.raises(UserError, match="channel 2 of all training images is one constant value"):
        ZScore(per="dataset").fit([torch.stack([torch.arange(9.0).view(3, 3), torch.ones(3, 3)])])


def test_zscore_streams_its_figures() -> None:
    """As numpy over all pixels at once, with images of any size and offset, each read once."""
    source = np.random.default_rng(1)
    images = [
        source.normal(1000 * index, 1 + index, (1, 3 + index, 40 - 3 * index)).astype(np.float32) for index in range(9)
    ]
    reads: list[int] = []

    def stream() -> Any:
        for index, image in enumerate(images):
            reads.append(index)
            yield torch.from_numpy(image)

    (fitted,) = pipeline.fitted([ZScore(per="dataset")], stream)
    pixels = np.concatenate([image.ravel() for image in images]).astype(np.float64)
    assert isinstance(fitted, ZScore) and reads == list(range(9))
    assert (fitted.mean, fitted.std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12)


def test_figures_that_are_given_are_kept() -> None:
    given = (ZScore(per="dataset", mean=3.0, std=2.0), Percentile(per="dataset", at_low=1.0, at_high=5.0), ZScore())
    assert pipeline.fitted(given, lambda: iter([torch.randn(1, 4, 4)])) == given
    assert given[0].image(torch.full((1, 1, 1), 7.0), None).item() == 2
    assert given[1].image(torch.full((1, 1, 1), 3.0), None).item() == 0.5


@pytest.mark.parametrize(
    ("make", "options", "key"),
    [
        (ZScore, {"mean": 1.0}, "per"),
        (ZScore, {"per": "dataset", "mean": 1.0}, "mean"),
        (ZScore, {"per": "dataset", "std": 1.0}, "std"),
        (Percentile, {"low": 50.0, "high": 50.0}, "low"),
        (Percentile, {"at_high": 1.0}, "per"),
        (Percentile, {"per": "dataset", "at_high": 1.0}, "at_high"),
        (Percentile, {"per": "dataset", "at_low": 1.0}, "at_low"),
        (Percentile, {"per": "dataset", "at_low": 5.0, "at_high": 3.0}, "at_low"),
        (PoissonNoise, {"photons": (1000.0, 100.0)}, "photons"),
        (PoissonNoise, {"photons": (100.0, -5.0)}, "photons"),
    ],
)
def test_a_refusal_names_the_key_at_fault(make: Any, options: dict[str, Any], key: str) -> None:
    """One that the file writes, so that there is a line to show."""
    with pytest.raises(UserError) as caught:
        make(**options)
    assert caught.value.key == key


@pytest.mark.parametrize("size", [(12, 12), (13, 17), (1, 5), (2, 3)])
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_downscale_comes_back_to_the_size(factor: int, size: tuple[int, int]) -> None:
    transform = Downscale(factor)
    sample = Sample(torch.randn(2, *size), torch.randint(0, 3, size), "x")
    coarse = pipeline.whole([transform], sample)
    assert coarse.size == (-(-size[0] // factor), -(-size[1] // factor))
    logits = torch.randn(3, *coarse.size)
    fine = pipeline.restore([transform], logits, size)
    assert fine.shape == (3, *size)
    assert torch.equal(fine[:, ::factor, ::factor], logits)  # where the labels were taken
    assert torch.equal(coarse.labels, sample.labels[::factor, ::factor])


@pytest.mark.parametrize("factor", [2, 4])
def test_coarse_answers_come_back_to_their_places(factor: int) -> None:
    """The best coarse answer there is loses detail, but is not shifted: a disc keeps its centre."""
    rows, columns = np.mgrid[:120, :130]
    labels = torch.from_numpy((np.hypot(rows - 60, columns - 64) <= 25).astype(np.int64))
    coarse = pipeline.whole([Downscale(factor)], Sample(labels.float()[None], labels, "x")).labels
    logits = functional.one_hot(coarse, 2).permute(2, 0, 1).float()
    found = pipeline.restore([Downscale(factor)], logits, (120, 130))[1]
    centre = [float((found * torch.from_numpy(axis)).sum() / found.sum()) for axis in (rows, columns)]
    assert centre == pytest.approx([60, 64], abs=0.05)


def test_downscaling_twice_comes_back_through_both_sizes() -> None:
    steps = [Downscale(2), Downscale(3)]
    sample = Sample(torch.randn(1, 23, 31), torch.zeros(23, 31).long(), "x")
    coarse = pipeline.whole(steps, sample)
    assert coarse.size == (4, 6)
    logits = torch.randn(2, 4, 6)
    fine = pipeline.restore(steps, logits, (23, 31))
    assert fine.shape == (2, 23, 31) and torch.equal(fine[:, ::6, ::6], logits)


def test_chances_are_kept() -> None:
    def drawn(transform: Any) -> np.ndarray:
        return np.array([transform.draw(generator(0, "test", 0, index)) for index in range(2000)])

    both = drawn(Reflect(x=0.2, y=0.7))
    assert both.mean(axis=0) == pytest.approx([0.2, 0.7], abs=0.04)
    assert both.all(axis=1).mean() == pytest.approx(0.14, abs=0.03)
    assert np.bincount(drawn(Rotate90())) / 2000 == pytest.approx([0.25] * 4, abs=0.04)
    assert np.bincount(drawn(Rotate90(p=0.4)))[0] / 2000 == pytest.approx(0.7, abs=0.04)
    assert drawn(Downscale(2, filter_probability=0.3)).mean() == pytest.approx(0.3, abs=0.04)


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ZScore().per = "dataset"  # type: ignore[misc]


def test_a_later_transform_is_fitted_behind_the_earlier() -> None:
    images = [torch.arange(16.0).reshape(1, 4, 4)]
    _, fitted = pipeline.fitted([Downscale(2), ZScore(per="dataset")], lambda: iter(images))
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
        pipeline.fitted([ZScore(per="dataset")], lambda: iter([torch.ones(1, 4, 4)]))


def test_downscale_means_its_blocks() -> None:
    image = np.random.default_rng(1).normal(size=(1, 7, 10))
    found = pipeline.whole([Downscale(3)], sample(image)).image[0].numpy()
    wanted = [[image[0, y : y + 3, x : x + 3].mean() for x in range(0, 10, 3)] for y in range(0, 7, 3)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    plain = pipeline.whole([Downscale(3, filter_probability=0)], sample(image)).image[0].numpy()
    np.testing.assert_array_equal(plain, image[0, ::3, ::3].astype(np.float32))
    assert Downscale(3, filter_probability=0.5).draws() and not Downscale(3).draws()


@pytest.mark.parametrize("transform", [ZScore(), Percentile()], ids=lambda transform: type(transform).__name__)
def test_a_transform_that_is_called_by_hand_takes_the_statistics_of_the_image(transform: ZScore | Percentile) -> None:
    image = torch.rand(1, 8, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(transform.image(image, None), transform.image(image, transform.statistics([image])))
