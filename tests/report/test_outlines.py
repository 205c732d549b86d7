"""Outlines: exact to the pixel."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from yeastexp.report import outlines


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """How often a path winds round each pixel."""
    winding = np.zeros(shape, np.int64)
    for loop in path.split("z")[:-1]:
        x, y = start = tuple(int(number) for number in re.findall(r"-?\d+", loop.split("h")[0].split("v")[0]))
        moves = [(kind, int(count)) for kind, count in re.findall(r"([hv])(-?\d+)", loop)]
        for kind, count in moves:
            if kind == "v":
                winding[min(y, y + count) : max(y, y + count), x:] += -1 if count > 0 else 1
            x, y = (x + count, y) if kind == "h" else (x, y + count)
        if y != start[1]:
            winding[min(y, start[1]) : max(y, start[1]), x:] += -1 if start[1] > y else 1
    return winding


def test_an_outline_turns_at_corners_alone() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    assert outlines.outline(mask) in ("M4 1v2h-3v-2z", "M1 1h3v2h-3z")
    assert outlines.outline(np.zeros((3, 3), bool)) == ""


def test_regions_that_touch_at_a_corner_have_outlines_of_their_own() -> None:
    assert outlines.outline(np.eye(3, dtype=bool)).count("z") == 3
    assert outlines.outline(~np.eye(2, dtype=bool)).count("z") == 2


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_an_outline_filled_again_is_the_mask(mask: np.ndarray) -> None:
    assert np.array_equal(filled(outlines.outline(mask), mask.shape), mask.astype(np.int64))


@given(arrays(np.int64, (6, 7), elements=st.integers(-1, 3)))
def test_each_cell_has_its_outline_at_its_place(ids: np.ndarray) -> None:
    path = outlines.cell_outlines(ids * 1000)
    assert (filled(path, ids.shape) == (ids > 0)).all()
    alone = "".join(outlines.outline(ids == number) for number in (1, 2, 3))
    assert sorted(path.split("z")) == sorted(alone.split("z"))
