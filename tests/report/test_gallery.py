"""Galleries: errors by category, and small files."""

from __future__ import annotations

import numpy as np
from test_outlines import filled
from torch import from_numpy

from yeastexp.report import gallery
from yeastexp.sample import IGNORE, Sample


def test_mistakes_are_told_apart_in_pixels() -> None:
    truth = np.array([[0, 1, 1, 2], [0, 0, 2, IGNORE]])
    prediction = np.array([[1, 0, 1, 1], [0, 2, 2, 1]])
    sample = Sample(from_numpy(np.zeros((1, 2, 4), np.float32)), from_numpy(truth), "a")
    (picture,) = gallery.overlay_gallery([gallery.PredictedImage(sample, prediction, "worst: a", "")]).images
    found = {one.category: filled(one.path, (2, 4)) for one in picture.overlays}
    assert found["missed"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert found["false"].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert found["confused"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert found["unlabelled"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    assert found["prediction"].tolist() == [[1, 0, 1, 1], [0, 1, 1, 1]]
    assert found["ground-truth"].tolist() == [[0, 1, 1, 1], [0, 0, 1, 0]]
    assert picture.description == (
        "a, 2 × 4 pixels: 1 of 4 foreground pixels missed, 1 assigned to another class; "
        "2 of 5 predicted pixels are false alarms."
    )


def test_pictures_of_large_images_stay_small() -> None:
    source = np.random.default_rng(0)
    y, x = np.mgrid[:1024, :1024]
    truth = ((x // 40 + y // 40) % 2).astype(np.int64)
    noise = source.normal(1000, 300, (1, 1024, 1024)).astype(np.float32)
    sample = Sample(from_numpy(noise), from_numpy(truth), "large")
    (made,) = gallery.overlay_gallery(
        [gallery.PredictedImage(sample, np.roll(truth, 3, axis=1), "worst: large", "")]
    ).images
    assert max(made.width, made.height) == gallery.LARGEST_SIDE
    assert len(made.url) + sum(len(one.path) for one in made.overlays) < 1_000_000
