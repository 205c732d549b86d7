"""Baselines, on images whose segmentation is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yeastexp.metrics import baselines
from yeastexp.metrics.baselines import Majority, Threshold
from yeastexp.sample import IGNORE, Sample


def discs(bright: bool, hollow: bool = False, noise: float = 0.05) -> list[Sample]:
    """Pictures of four discs of radius 10; hollow ones show their rim alone."""
    made = []
    for seed in range(3):
        source = np.random.default_rng(seed)
        rows, columns = np.mgrid[:96, :96]
        truth, seen = np.zeros((96, 96), bool), np.zeros((96, 96), bool)
        for y, x in ((24, 24), (24, 72), (72, 24), (70, 70)):
            radius = np.hypot(rows - y, columns - x)
            truth |= radius <= 10
            seen |= (radius <= 10) & (radius > (7 if hollow else -1))
        image = seen * (1.0 if bright else -1.0) + source.normal(0, noise, (96, 96))
        made.append(
            Sample(torch.from_numpy(image).float()[None] * 700 + 5000, torch.from_numpy(truth).long(), str(seed))
        )
    return made


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("hollow", [True, False])
def test_a_threshold_finds_what_a_threshold_can(bright: bool, hollow: bool) -> None:
    samples = discs(bright, hollow)
    found = baselines.fit_threshold(samples)
    assert found.bright is bright and found.filled >= hollow
    for sample in samples:
        answer = found(sample.image) == 1
        assert float((answer & (sample.labels == 1)).sum() / (answer | (sample.labels == 1)).sum()) > 0.97


def test_erosion_and_filling() -> None:
    ring = np.zeros((1, 15, 15), np.float32)
    ring[0, 3:12, 3:12] = 1
    ring[0, 5:10, 5:10] = 0
    standard = baselines.smoothed(ring, 0)
    assert Threshold(0, True, 0.5).mask(standard).sum() == 81 - 25
    assert Threshold(0, True, 0.5, filled=True).mask(standard).sum() == 81
    assert Threshold(0, True, 0.5, filled=True, erosion_px=2).mask(standard).sum() == 25
    touching = standard.copy()
    touching[7, 7:] = standard.min()  # the hole now reaches the border
    assert Threshold(0, True, 0.5, filled=True).mask(touching).sum() == 81 - 25 - 2


def test_all_background_is_the_commonest_known_class() -> None:
    labels = torch.tensor([[IGNORE, IGNORE, IGNORE, 1, 1, 0]])
    answers = baselines.fit([Sample(torch.zeros(1, 1, 6), labels, "x")] * 2, ("background", "cell"))
    assert answers["all cell"] == Majority(1)
    assert answers["all cell"](torch.zeros(1, 2, 3)).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_pixels_without_truth_are_no_background() -> None:
    """What nobody annotated is brighter than one of two cells: as background it would cost that cell."""
    image, labels = torch.zeros(1, 96, 96), torch.zeros(96, 96).long()
    for column, value in ((10, 0.3), (60, 0.6)):
        image[0, 10:30, column : column + 20] = value
        labels[10:30, column : column + 20] = 1
    image[0, 48:], labels[48:] = 0.45, IGNORE
    found = baselines.fit_threshold([Sample(image, labels, "x")])
    assert torch.equal(found(image)[:48], labels[:48])


@pytest.mark.parametrize("bright", [True, False])
def test_a_clean_picture_is_answered_exactly(bright: bool) -> None:
    samples = discs(bright, noise=0.0)
    found = baselines.fit_threshold(samples)
    assert all(torch.equal(found(sample.image), sample.labels) for sample in samples)
    again = baselines.fit_threshold([Sample(one.image * 3 - 9, one.labels, one.name) for one in samples])
    assert again == found  # gain and offset change nothing


def test_channels_are_averaged() -> None:
    image = torch.zeros(2, 9, 9)
    image[0, 2:5, 2:5], image[1, 4:7, 4:7] = 2, 2
    assert int(Threshold(0, True, 0.0)(image).sum()) == 9 + 9 - 1


def test_more_classes_have_no_threshold() -> None:
    assert set(baselines.fit(discs(True), ("background", "cell", "bud"))) == {"all background"}


def test_images_without_cells_and_constant_ones_do_no_harm() -> None:
    empty = Sample(torch.full((1, 96, 96), 3.0), torch.zeros(96, 96).long(), "empty")
    assert baselines.fit_threshold([empty, *discs(True)]).bright
    assert not baselines.fit_threshold([empty])(empty.image).any()


def test_a_dim_channel_with_the_cells_is_thresholded_beside_a_bright_one() -> None:
    """Noise of a bright channel would hide the cells of the other if their values were averaged."""
    samples = []
    for index, sample in enumerate(discs(True, noise=0.0)):
        haze = 20000 + 5000 * torch.randn(sample.image.shape, generator=torch.Generator().manual_seed(index))
        samples.append(Sample(torch.cat([haze, sample.image]), sample.labels, sample.name))
    found = baselines.fit_threshold(samples)
    for sample in samples:
        answer = found(sample.image) == 1
        assert float((answer & (sample.labels == 1)).sum() / (answer | (sample.labels == 1)).sum()) > 0.8
