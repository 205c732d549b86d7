"""Cells in pictures: colours, numbers and errors."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from yeastexp.drawing import cells

IDS = np.zeros((60, 80), np.int64)
for place, (row, column) in enumerate(np.ndindex(3, 4)):
    IDS[20 * row + 2 : 20 * row + 20, 20 * column + 1 : 20 * column + 20] = 7 * place + 1
GREY = np.full((60, 80, 3), 90, np.uint8)


def test_cells_beside_each_other_have_different_colours() -> None:
    table = cells.colours(IDS)
    assert (table[0] == 0).all()
    for number in np.unique(IDS)[1:].tolist():
        near = np.unique(IDS[ndimage.binary_dilation(number == IDS, np.ones((3, 3)), iterations=2)])
        others = [other for other in near.tolist() if other not in (0, number)]
        assert others and all((table[number] != table[other]).any() for other in others)


def test_outlines_lie_within_cells_and_numbers_are_the_ids() -> None:
    drawn, numbered = cells.outlined(GREY, IDS), cells.outlined(GREY, IDS, numbers=True)
    changed = (drawn != GREY).any(axis=2)
    assert changed.any() and not changed[IDS == 0].any()
    middles = np.zeros(IDS.shape, bool)
    middles[10::20, 10::20] = True
    assert (numbered != drawn).any(axis=2)[ndimage.binary_dilation(middles, iterations=6)].any()


def test_ids_may_be_any_numbers() -> None:
    """What is drawn does not depend on how large they are, nor does memory."""
    far = np.where(IDS > 0, IDS + 10**12, 0)
    assert np.array_equal(cells.outlined(GREY, far), cells.outlined(GREY, IDS))
    image = GREY[..., 0][None].astype(np.float32)
    panel = cells.panel(image, far, IDS, {"missed": [10**12 + 1], "split": []}, {"false": [8], "merged": []})
    assert panel.shape[2] == 3 and panel.dtype == np.uint8


def test_a_panel_of_a_small_image_is_large_and_says_what_its_colours_mean() -> None:
    image = GREY[..., 0][None].astype(np.float32)
    wrong: tuple[dict[str, list[int]], ...] = {"missed": [1], "split": []}, {"false": [8], "merged": []}
    panel = cells.panel(image, IDS, IDS, *wrong)
    assert panel.shape[1] > 4 * cells.LEAST_SIDE
    beside = panel[:, 4 * (cells.LEAST_SIDE + 6) :].reshape(-1, 3)
    for colour in cells.WRONG.values():
        assert (beside == colour).all(axis=1).any()
