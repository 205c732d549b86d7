"""Pictures of images and labels, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from yeastexp.drawing import pictures
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


def test_values_between_given_limits() -> None:
    image = np.array([[[0.0, 1.0, 2.0, 3.0]]], np.float32)
    assert pictures.grey_of(image, [(1.0, 2.0)])[0, :, 0].tolist() == [0, 0, 255, 255]
    wide = np.linspace(0, 1000, 2001, dtype=np.float32).reshape(1, 1, -1)
    assert pictures.limits_of(wide[..., :1000], wide[..., 1000:]) == [pytest.approx((5, 995))]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_dim_channel_is_seen_beside_a_bright_one(channels: int) -> None:
    """The square is in the dim channels alone; in the range of the bright one it would be black."""
    image = np.random.default_rng(0).normal(20000, 2000, (channels, 40, 40)).astype(np.float32)
    image[1:] = 200
    image[1:, 10:30, 10:30] = 500
    grey = pictures.grey_of(image).astype(float)
    inside = np.zeros((40, 40), bool)
    inside[10:30, 10:30] = True
    difference = np.median(grey[inside], axis=0) - np.median(grey[~inside], axis=0)
    assert difference.max() > 100
    limits = pictures.limits_of(image, image)
    assert limits[1:] == [(200, 500)] * (channels - 1) and limits[0][1] > 20000


def test_outlines_lie_just_inside_their_label() -> None:
    labels = np.zeros((9, 9), np.int64)
    labels[2:7, 2:7] = 1
    labels[4, 4:] = 2
    drawn = pictures.outlined(np.full((9, 9, 3), 50, np.uint8), labels)
    first, second = pictures.outline_colour(1), pictures.outline_colour(2)
    coloured = {tuple(one) for one in drawn[labels == 1].tolist()}
    assert coloured <= {first, (50, 50, 50)} and first in coloured
    assert {tuple(one) for one in drawn[labels == 2].tolist()} == {second}
    assert (drawn[labels == 0] == 50).all()
    assert tuple(drawn[2, 4].tolist()) == first and first != second


def test_the_border_of_the_image_and_of_what_has_a_label_is_no_outline() -> None:
    labels = np.ones((8, 8), np.int64)
    labels[:, 5:] = IGNORE
    assert not pictures.edges(labels).any()
    drawn = pictures.outlined(np.full((8, 8, 3), 50, np.uint8), labels)
    assert (drawn[:, :5] == 50).all()
    hatched = (drawn[:, 5:] == pictures.IGNORED_COLOUR).all(axis=2)
    assert 0 < hatched.mean() < 0.5


@pytest.mark.parametrize("side", [10, 40, 100])
def test_tiles_of_any_size_keep_labels_in_their_place(side: int) -> None:
    image = np.zeros((1, 40, 20), np.float32)
    labels = np.zeros((40, 20), np.int64)
    labels[:20] = 1
    drawn = pictures.tile(image, labels, side)
    assert drawn.shape == (side, side // 2, 3)
    outlined = (drawn == pictures.outline_colour(1)).all(axis=2)
    assert outlined[side // 2 - 1].all() and not outlined[side // 2 :].any() and not outlined[: side // 2 - 2].any()
    assert not pictures.tile(image, None, side).any()


def test_a_frame_lies_on_the_pixels_of_its_box() -> None:
    drawn = pictures.framed(np.zeros((20, 30, 3), np.uint8), (4, 5, 14, 25), (9, 8, 7))
    found = np.argwhere((drawn == (9, 8, 7)).all(axis=2))
    assert found.min(axis=0).tolist() == [4, 5] and found.max(axis=0).tolist() == [13, 24]
    assert not drawn[8, 12].any()


def test_a_circle_has_its_diameter() -> None:
    drawn = pictures.circled(np.zeros((41, 41, 3), np.uint8), (20, 20), 20, (9, 8, 7))
    found = np.argwhere((drawn == (9, 8, 7)).all(axis=2))
    assert np.ptp(found, axis=0).tolist() == [20, 20] and found.mean(axis=0) == pytest.approx([20, 20])


def test_text_is_cut_where_it_is_too_long() -> None:
    assert pictures.truncated("short", 100) == "short"
    cut = pictures.truncated("a name that is much too long for so few pixels", 100)
    assert cut.endswith("…") and "a name that is much".startswith(cut.rstrip("…"))
    assert pictures.truncated("any", 0) == "…"
    tile = np.zeros((10, 200, 3), np.uint8)
    assert pictures.captioned(tile, "x" * 500, "second").shape == (10 + 2 * pictures.CAPTION, 200, 3)
    assert pictures.text_block("one", "two", size=15).shape[0] == 2 * (15 + pictures.CAPTION - pictures.TEXT_SIZE)


def test_letters_of_many_languages_are_no_boxes() -> None:
    """Pillow's own font draws the same box for each of them."""
    drawn = {pictures.text_block(letter).tobytes() for letter in "×–±µ∂äжλ"}
    assert len(drawn) == 8


def test_a_legend_has_a_patch_of_every_colour() -> None:
    found = pictures.legend([((9, 8, 7), "one"), ((70, 80, 90), "two")])
    assert found.shape[0] == 2 * pictures.CAPTION
    for colour in ((9, 8, 7), (70, 80, 90)):
        assert (found == colour).all(axis=2).sum() >= 50


@pytest.mark.parametrize("value", [0.0, -3.0, 1e9])
def test_a_histogram_of_a_constant(value: float) -> None:
    found = pictures.histogram([np.full((1, 3, 3), value, np.float32)], (60, 100))
    assert found.shape == (60, 100, 3) and found.dtype == np.uint8


def test_a_histogram_has_a_line_for_each_array() -> None:
    low, high = np.zeros(1000, np.float32), np.ones(1000, np.float32)
    low[0], high[0] = 1, 0
    found = pictures.histogram([low, high], (60, 160))
    first, second = ((found == colour).all(axis=2) for colour in pictures.line_colours(2))
    assert np.argwhere(first[:30])[:, 1].max() < 40 and np.argwhere(second[:30])[:, 1].min() > 120


def test_pictures_of_several_heights_in_a_row() -> None:
    low, high = np.zeros((2, 3, 3), np.uint8), np.full((5, 4, 3), 7, np.uint8)
    found = pictures.in_a_row([low, high], gap=2)
    assert found.shape == (5, 3 + 4 + 2 * 2, 3)
    assert (found[:2, :3] == 0).all() and (found[2:, :3] == 255).all() and (found[:, 5:9] == 7).all()
    assert pictures.squared(low, 5).shape == (5, 5, 3) and (pictures.squared(low, 5)[2:] == 255).all()
