"""Borders cut off, and put back for the scores."""

from __future__ import annotations

import pytest
import torch

from yeastexp.data.transforms import pipeline
from yeastexp.data.transforms.crop import Crop
from yeastexp.data.transforms.downscale import Downscale
from yeastexp.errors import UserError
from yeastexp.sample import Sample

CROP = Crop(top=1, bottom=2, left=3, right=4)


def sample() -> Sample:
    labels = torch.arange(120).view(10, 12) % 5
    return Sample(torch.arange(240.0).view(2, 10, 12), labels, "x", None, {"instances": labels + 7})


def test_crop_is_a_slice_of_image_labels_and_maps() -> None:
    before, after = sample(), pipeline.whole([CROP], sample())
    assert torch.equal(after.image, before.image[:, 1:8, 3:8])
    assert torch.equal(after.labels, before.labels[1:8, 3:8])
    assert torch.equal(after.maps["instances"], before.maps["instances"][1:8, 3:8])


def test_what_was_cut_off_comes_back_as_class_0() -> None:
    logits = torch.randn(3, 7, 5)
    found = pipeline.restore([CROP], logits, (10, 12))
    assert found.shape == (3, 10, 12) and torch.equal(found[:, 1:8, 3:8], logits)
    outside = torch.ones(10, 12, dtype=torch.bool)
    outside[1:8, 3:8] = False
    assert bool((found.argmax(dim=0)[outside] == 0).all())
    assert float(found.softmax(dim=0)[0][outside].min()) > 1 - 1e-6


def test_crop_after_a_coarser_grid_cuts_coarse_pixels() -> None:
    steps = [Downscale(2), Crop(top=1, left=2)]
    assert pipeline.whole(steps, sample()).size == (4, 4)
    found = pipeline.restore(steps, torch.ones(2, 4, 4), (10, 12))
    assert found.shape == (2, 10, 12) and found[1, 0, 0] == -20 and found[1, 4, 8] == 1


def test_a_crop_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UserError) as error:
        pipeline.whole([Crop(top=6, bottom=4)], sample())
    assert str(error.value) == (
        "crop: cuts 6 + 4 rows and 0 + 0 columns off an image of 10 × 12 pixels, which leaves nothing; cut off less"
    )
