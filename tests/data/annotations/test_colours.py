"""Painted masks give the class of each pixel, and colours that nobody named are refused with their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yeastexp.data.annotations import colours
from yeastexp.errors import UserError

PATH = Path("a.png")
CLASSES = np.array([[0, 1, 2], [2, 0, 0]])
PAINTED = np.moveaxis(np.array([(0, 0, 0), (255, 0, 0), (0, 255, 16)], np.uint8)[CLASSES], -1, 0)


def test_colours_become_classes() -> None:
    named = colours.parsed("cell=#ff0000, dead = 00FF10")
    assert list(named) == ["background", "cell", "dead"]
    labels = colours.of_colours(PATH, PAINTED, named)
    np.testing.assert_array_equal(labels.classes, CLASSES)
    assert labels.instances is None


def test_a_background_of_another_colour() -> None:
    named = colours.parsed("cell=#000000,background=#ffffff")
    image = np.full((3, 2, 2), 255, np.uint8)
    image[:, 0, 1] = 0
    np.testing.assert_array_equal(colours.of_colours(PATH, image, named).classes, [[0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--colours: '' is no class and its colour; write cell=#ff0000,dead=#00ff00"),
        ("cell", "--colours: 'cell' is no class and its colour"),
        ("cell=red", "--colours: 'cell=red' is no class and its colour"),
        ("a=#ff0000,a=#00ff00", "--colours: 'a=#00ff00' has a class or a colour that was there before"),
        ("a=#ff0000,b=#ff0000", "--colours: 'b=#ff0000' has a class or a colour that was there before"),
        ("a=#000000", "--colours: #000000 is the background; say which colour that has, as background=#ffffff"),
    ],
)
def test_bad_colours(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        colours.parsed(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PAINTED, "a.png: has colours that --colours does not name: #00ff10 (2 pixels); name or repaint them"),
        (PAINTED[:1], "a.png: is not coloured in red, green and blue of 8 bit; omit --colours, or save it so"),
        (PAINTED.astype(np.uint16), "a.png: is not coloured in red, green and blue of 8 bit"),
        (
            np.arange(48, dtype=np.uint8).reshape(3, 4, 4),
            "a.png: has colours that --colours does not name: #001020 (1 pixel), #011121 (1 pixel), #021222 (1 pixel) "
            "and 13 more; edges that are smooth, or JPEG, mix colours; name or repaint them",
        ),
    ],
)
def test_bad_masks(image: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        colours.of_colours(PATH, image, colours.parsed("cell=#ff0000"))
    assert str(caught.value).startswith(message)


@given(st.text(max_size=30))
def test_any_text_is_colours_or_one_line(text: str) -> None:
    try:
        assert "background" in colours.parsed(text)
    except UserError as error:
        assert "\n" not in str(error)
