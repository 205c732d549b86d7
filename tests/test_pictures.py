"""Pictures of images and labels, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from yeastexp import pictures
from yeastexp.sample import IGNORE


def test_values_of_any_range_become_grey() -> None:
    ramp = np.linspace(0, 1, 1001, dtype=np.float32).reshape(1, 7, 143)
    for image in (ramp, ramp * 60000 + 500, ramp * 1e-6 - 3e-6):
        grey = pictures.grey_of(image)
        assert grey.shape == (7, 143, 3) and grey.dtype == np.uint8
        assert (grey[0, :6] == 0).all() and (grey[-1, -6:] == 255).all()
        assert abs(int(grey[3, 71, 0]) - 128) <= 1 and (grey[..., 0] == grey[..., 2]).all()


def test_three_channels_are_colours_and_two_are_averaged() -> None:
    image = np.zeros((3, 4, 4), np.float32)
    image[0, :2], image[2, 2:] = 1, 1
    assert pictures.grey_of(image)[[0, 3], 0].tolist() == [[255, 0, 0], [0, 0, 255]]
    grey = pictures.grey_of(image[:2])
    assert grey[[0, 3], 0].tolist() == [[255] * 3, [0] * 3]


def test_a_constant_image_has_no_range() -> None:
    assert not pictures.grey_of(np.full((1, 3, 3), 7, np.float32)).any()


def test_labels_have_colours_of_their_own() -> None:
    labels = np.array([[IGNORE, 0, 1, 2, 6, 7, 11, 119]])
    found = pictures.coloured(labels)[0].tolist()
    assert found[:3] == [[128] * 3, [0] * 3, [255] * 3]
    assert found[3] == pictures.LABEL_COLOURS[2].tolist() and found[4] == pictures.LABEL_COLOURS[6].tolist()
    # Those beyond the list repeat colours, but never those of background and foreground.
    assert all(colour in pictures.LABEL_COLOURS[2:].tolist() for colour in found[5:])
    assert labels.tolist() == [[IGNORE, 0, 1, 2, 6, 7, 11, 119]]


def test_differences_are_marked_where_there_is_truth() -> None:
    grey = np.full((1, 6, 3), 100, np.uint8)
    truth, prediction = np.array([[0, 1, 1, 0, 1, IGNORE]]), np.array([[0, 1, 0, 1, 2, 1]])
    missed, false = pictures.MISSED.tolist(), pictures.FALSE_ALARM.tolist()
    dark = [50, 50, 50]
    assert pictures.differing(grey, truth, prediction)[0].tolist() == [dark, dark, missed, false, false, dark]
    assert (grey == 100).all()


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (2, 700), (1030, 515)])
def test_a_panel_shows_four_captioned_tiles(size: tuple[int, int]) -> None:
    labels = np.zeros(size, np.int64)
    panel = pictures.panel(np.random.default_rng(0).normal(size=(1, *size)).astype(np.float32), labels, labels)
    shrink = max(1, max(size) / pictures.LARGEST_SIDE)
    height, width = (max(1, round(n / shrink)) for n in size)
    assert panel.shape == (height + pictures.CAPTION, 4 * (max(width, pictures.NARROWEST) + pictures.GAP), 3)
    assert panel.dtype == np.uint8
    truth = panel[pictures.CAPTION :, max(width, pictures.NARROWEST) + pictures.GAP :][:, :width]
    assert not truth.any()


def test_pictures_of_several_widths_are_stacked() -> None:
    narrow, wide = np.zeros((4, 5, 3), np.uint8), np.full((3, 9, 3), 7, np.uint8)
    found = pictures.stacked([narrow, wide])
    assert found.shape == (4 + 3 + 2 * pictures.GAP, 9, 3)
    assert (found[:4, :5] == 0).all() and (found[:4, 5:] == 255).all()
    assert (found[4 + pictures.GAP : 7 + pictures.GAP] == 7).all()
