"""Outlines are filled as scikit-image fills them, and what is odd about them is counted."""

from __future__ import annotations

import numpy as np
import pytest
from annotated_cells import contours, label_image, traced
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon

from yeastexp.data.annotations import polygons
from yeastexp.data.annotations.polygons import Shape, count_corners, drawn, filled

COORDINATES = st.one_of(
    st.integers(-5, 25).map(float),
    st.integers(-10, 50).map(lambda n: n / 2),
    st.integers(-35, 175).map(lambda n: n / 7),
    st.floats(-5, 25),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=12), st.integers(1, 22), st.integers(1, 22))
def test_fills_as_scikit_image_does(points: list[tuple[float, float]], height: int, width: int) -> None:
    """Vertices and edges on pixel centres, edges that cross, points outside, all of it."""
    ring, wanted = np.array(points), np.zeros((height, width), bool)
    wanted[polygon(ring[:, 1], ring[:, 0], wanted.shape)] = True
    np.testing.assert_array_equal(filled(ring, wanted.shape), wanted)


def test_many_edges_are_filled_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = polygons.ellipse((30, 20), (25, 15))
    whole = filled(ring, (40, 60))
    monkeypatch.setattr(polygons, "EDGES", 7)
    np.testing.assert_array_equal(filled(ring, (40, 60)), whole)


def square(x: float, y: float, side: float, label: int = 1) -> Shape:
    return Shape(((polygons.rectangle((x, y), (x + side, y + side)),),), label)


def test_counts_what_overlaps_leaves_the_image_or_is_empty() -> None:
    shapes = [square(1, 1, 3), square(3, 3, 3, 2), square(8, 8, 5), square(30, 3, 2), square(7.2, 1.2, 0.5), Shape()]
    ids, labels, counts = drawn(shapes, (10, 10))
    assert counts == {"overlapping": 1, "cut": 1, "outside": 1, "empty": 2}
    assert (ids[3, 3], labels[3, 3], ids[1, 1], ids[9, 9]) == (2, 2, 1, 3)
    assert ids.dtype == np.int32


def test_counts_what_is_hidden() -> None:
    ids, _, counts = drawn([square(2, 2, 1), square(1, 1, 4)], (10, 10))
    assert counts == {"overlapping": 1, "hidden": 1} and np.unique(ids).tolist() == [0, 2]


def test_holes_and_pieces() -> None:
    outer, hole, island = (polygons.rectangle((at, at), (20 - at, 20 - at)) for at in (0.5, 4.5, 8.5))
    ids, _, _ = drawn([Shape(((outer, hole), (island,)))], (25, 25))
    wanted = np.zeros((25, 25), bool)
    wanted[1:20, 1:20], wanted[5:16, 5:16], wanted[9:12, 9:12] = True, False, True
    np.testing.assert_array_equal(ids > 0, wanted)


def test_masks_are_placed_and_cut() -> None:
    ids, _, counts = drawn(
        [Shape(mask=np.ones((4, 4), bool), corner=(-2, 7)), Shape(mask=np.ones((2, 2)), corner=(20, 0))], (9, 9)
    )
    assert counts == {"cut": 1, "outside": 1}
    assert np.argwhere(ids == 1).tolist() == [[row, column] for row in (0, 1) for column in (7, 8)]


def test_far_vertices_take_no_more_than_the_image() -> None:
    ids, _, counts = drawn([square(-1e7, -1e7, 2e7)], (5, 7))
    assert (ids == 1).all() and counts == {"cut": 1}


@pytest.mark.parametrize("usual", [False, True])
def test_contours_tell_what_whole_numbers_are(usual: bool) -> None:
    """Those of a mask at half height; usual is what is taken where they do not tell."""
    rings = contours(label_image())
    assert not count_corners([Shape(((ring,),)) for ring in rings], usual)
    assert count_corners([Shape(((ring + 0.5,),)) for ring in rings], usual)


def test_outlines_of_whole_numbers() -> None:
    labels = label_image()
    traces = [Shape(((traced(labels == number),),)) for number in range(1, 9)]
    assert count_corners(traces, True) and not count_corners(traces, False)
    ring = np.array([(1, 1), (2, 1), (3, 2), (3, 3), (2, 3), (1, 2)])
    assert not count_corners([Shape(((ring,),))], True), "from pixel to pixel"
    assert count_corners([square(1, 1, 3)], True) and not count_corners([square(1, 1, 3)], False)
