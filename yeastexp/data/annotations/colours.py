"""Masks painted in colours, each of which is a class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yeastexp.data.annotations.contract import BACKGROUND, Labels
from yeastexp.errors import UserError
from yeastexp.system.formatting import format_count

Colours = Mapping[str, int]
"""Red, green and blue as one number, as #ff0000, by the class; black is the background if no colour is."""

SHOWN = 3
MOST_CLASSES = 255


def parsed(text: str) -> dict[str, int]:
    """The colours of classes from 'cell=#ff0000,dead=#00ff00'. Raises UserError if they are not that."""
    colours: dict[str, int] = {}
    for item in text.split(","):
        match = re.fullmatch(r"\s*([^=]+?)\s*=\s*#?([0-9a-fA-F]{6})\s*", item)
        if match is None or match[1] in colours or int(match[2], 16) in colours.values():
            why = "is no class and its colour" if match is None else "has a class or a colour that was there before"
            raise UserError(f"--colours: {item.strip()!r} {why}; write cell=#ff0000,dead=#00ff00")
        colours[match[1]] = int(match[2], 16)
    if 0 in colours.values() and BACKGROUND not in colours:
        raise UserError("--colours: #000000 is the background; say which colour that has, as background=#ffffff")
    return {BACKGROUND: colours.pop(BACKGROUND, 0), **colours}


def of_colours(path: Path, image: npt.NDArray[Any], colours: Colours) -> Labels:
    """The classes (H, W), in the order of the colours, of an image (3, H, W). Raises UserError if it has others."""
    if image.ndim != 3 or len(image) != 3 or image.dtype != np.uint8:
        raise UserError(f"{path}: is not coloured in red, green and blue of 8 bit; omit --colours, or save it so")
    if len(colours) > MOST_CLASSES:
        raise UserError(f"--colours: names {len(colours)} classes, more than {MOST_CLASSES}; join some")
    red, green, blue = image.astype(np.int32)
    painted = red << 16 | green << 8 | blue
    values, places, counts = np.unique(painted, return_inverse=True, return_counts=True)
    numbers = {colour: index for index, colour in enumerate(colours.values())}
    others = sorted(
        (-int(count), int(value)) for value, count in zip(values, counts, strict=True) if value not in numbers
    )
    if others:
        shown = ", ".join(f"#{value:06x} ({format_count(-count, 'pixel')})" for count, value in others[:SHOWN])
        more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
        lossy = "; edges that are smooth, or JPEG, mix colours" if len(others) > 2 * SHOWN else ""
        raise UserError(f"{path}: has colours that --colours does not name: {shown}{more}{lossy}; name or repaint them")
    indices = np.array([numbers[int(value)] for value in values], np.uint8)
    return Labels(classes=indices[places].reshape(painted.shape))
